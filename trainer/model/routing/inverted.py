"""Inverted dot-product attention (Tsai, Srivastava, Goh, Salakhutdinov 2020, "Capsules with inverted dot-product
attention routing", procedure 1).

A layer here iterates by itself, which the paper calls sequential; see ``model/concurrent.py`` for all layers at once.

Axes: B batch, I children, T transforms, J parents, Q parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import couplings
from trainer.model.routing.extra import inverted as weights
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, collect, observe
from trainer.model.routing.votes import child_order, votes
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
    votes_IBJQ = votes(children.poses_BNP, transform)
    iterate = _iterate_compiled if config.xla else _iterate
    poses_BJQ, activations_BJ, steps = iterate(
        votes_IBJQ,
        dict(extra),
        start_BJQ,
        iterations=config.iterations,
        leaky=config.leaky,
        stop_gradient=config.stop_gradient,
        trace=trace,
        records=coupling_records,
    )
    parents = Capsules(poses_BJQ, activations_BJ)
    if not trace:
        return parents, None
    steps = [step._replace(coupling_INJ=child_order(step.coupling_INJ, transform.transforms, axis=0)) for step in steps]
    return parents, collect(steps, children, parents)


def _iterate(
    votes_IBJQ: tf.Tensor,
    extra: dict[str, tf.Tensor],
    poses_BJQ: tf.Tensor | None,
    *,
    iterations: int,
    leaky: bool,
    stop_gradient: bool,
    trace: bool,
    records: int,
) -> tuple[tf.Tensor, tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ = at_least_float32(votes_IBJQ)
    extra = {name: tf.cast(value, votes_IBJQ.dtype) for name, value in extra.items()}
    share = 1.0 / (votes_IBJQ.shape[2] + leaky)
    steps: list[CouplingTrace] = []
    for _ in range(iterations):
        if poses_BJQ is None:  # parents are 0 at first, so that a_ij = 0
            coupling_IBJ = None
            preactivation_BJQ = share * tf.reduce_sum(votes_IBJQ, axis=0)
        else:
            agreement_IBJ = tf.reduce_sum(votes_IBJQ * poses_BJQ, axis=-1)  # a_ij = p_j . v_ij (equation 2)
            coupling_IBJ = couplings(agreement_IBJ, leaky)  # r_ij (equation 3)
            if stop_gradient:
                coupling_IBJ = tf.stop_gradient(coupling_IBJ)
            preactivation_BJQ = tf.reduce_sum(coupling_IBJ[..., tf.newaxis] * votes_IBJQ, axis=0)
        if "bias" in extra:
            preactivation_BJQ += extra["bias"]
        poses_BJQ = layer_norm(preactivation_BJQ) * extra["gain"] + extra["shift"]  # p_j (equation 4)
        if trace:
            if coupling_IBJ is None:
                coupling_IBJ = share * tf.ones_like(votes_IBJQ[..., 0])
            steps.append(observe(coupling_IBJ, leaky, records))
    activations_BJ = tf.linalg.matvec(poses_BJQ, extra["readout"]) + extra["readout_bias"]
    return poses_BJQ, activations_BJ, steps


_iterate_compiled = tf.function(_iterate, jit_compile=True)  # without the votes, as in dynamic routing
