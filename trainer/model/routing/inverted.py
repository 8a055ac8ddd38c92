"""Inverted dot-product attention (Tsai, Srivastava, Goh, Salakhutdinov 2020, "Capsules with inverted dot-product
attention routing", procedure 1).

A layer here iterates by itself, which the paper calls sequential; see ``model/concurrent.py`` for all layers at once.

Axes: B batch, I children, T transforms, J parents, Q parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import Rule, couplings
from trainer.model.routing.choice import choose_for
from trainer.model.routing.extra import inverted as weights
from trainer.model.routing.streamed import streamed
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, by_child, collect, observe
from trainer.model.routing.votes import votes
from trainer.model.squash import at_least_float32, layer_norm

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = False


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
    start_BJQ: tf.Tensor | None = None,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents by R iterations of attention in which parents compete for each child.

    Arguments and result are those of ``dynamic.route``, but that poses are normalised and not squashed, and that the
    activations are the paper's class logits: a linear function of the pose, the same for all parents. They have no
    bounds. The paper's loss is cross_entropy with scale 1; margin and spread loss draw them to their margins.

    Args:
        start_BJQ: poses of the parents before the first iteration, in place of 0.
    """
    rule = Rule(config.iterations, config.leaky, config.stop_gradient, cumulative=False, fan=transform.fan)
    weights = [extra[name] for name in ("gain", "shift", "bias") if name in extra]
    records = coupling_records if trace else None
    choice = choose_for(config, children.poses_BNP, transform)
    if choice.implementation == "stored" or start_BJQ is not None:
        iterate = _iterate_compiled if config.xla else _iterate
        poses_BJQ, steps = iterate(votes(children.poses_BNP, transform), weights, start_BJQ, rule=rule, records=records)
        steps = by_child(steps, transform.transforms)
    else:
        poses_BJQ, steps = streamed(
            children.poses_BNP, transform, weights, _normalised, rule, choice, xla=config.xla, records=records
        )
    readout_Q, readout_bias_1 = (tf.cast(extra[name], poses_BJQ.dtype) for name in ("readout", "readout_bias"))
    parents = Capsules(poses_BJQ, tf.linalg.matvec(poses_BJQ, readout_Q) + readout_bias_1)
    return parents, collect(steps, children, parents) if trace else None


def _iterate(
    votes_IBJQ: tf.Tensor,
    weights: Sequence[tf.Tensor],
    poses_BJQ: tf.Tensor | None,
    *,
    rule: Rule,
    records: int | None,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ = at_least_float32(votes_IBJQ)
    share = 1.0 / (votes_IBJQ.shape[2] + rule.leaky)
    steps: list[CouplingTrace] = []
    for _ in range(rule.iterations):
        if poses_BJQ is None:  # parents are 0 at first, so that a_ij = 0
            coupling_IBJ = None
            preactivation_BJQ = share * tf.reduce_sum(votes_IBJQ, axis=0)
        else:
            agreement_IBJ = tf.reduce_sum(votes_IBJQ * poses_BJQ, axis=-1)  # a_ij = p_j . v_ij (equation 2)
            coupling_IBJ = couplings(agreement_IBJ, rule.leaky)  # r_ij (equation 3)
            if rule.stop_gradient:
                coupling_IBJ = tf.stop_gradient(coupling_IBJ)
            preactivation_BJQ = tf.reduce_sum(coupling_IBJ[..., tf.newaxis] * votes_IBJQ, axis=0)
        poses_BJQ, _ = _normalised(preactivation_BJQ, weights, rule)
        if records is not None:
            if coupling_IBJ is None:
                coupling_IBJ = share * tf.ones_like(votes_IBJQ[..., 0])
            steps.append(observe(coupling_IBJ, rule.leaky, records, rule.fan))
    return poses_BJQ, steps


def _normalised(preactivation_BJQ: tf.Tensor, weights: Sequence[tf.Tensor], _rule: Rule) -> tuple[tf.Tensor, tf.Tensor]:
    """p_j (equation 4), which is all that votes are compared with."""
    gain_Q, shift_Q, *bias_JQ = (tf.cast(weight, preactivation_BJQ.dtype) for weight in weights)
    for bias in bias_JQ:
        preactivation_BJQ += bias
    pose_BJQ = layer_norm(preactivation_BJQ) * gain_Q + shift_Q
    return pose_BJQ, pose_BJQ


_iterate_compiled = tf.function(_iterate, jit_compile=True)  # without the votes, as in dynamic routing
