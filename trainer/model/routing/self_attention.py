"""Self-attention routing (Mazzia, Salvetti, Chiaberge 2021, "Efficient-CapsNet: capsule network with self-attention
routing", section 3): votes that agree with all other votes for the same parent count for more. No iterations.

Axes: B batch, I children, T transforms, J parents, Q parent pose size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import Rule, couplings
from trainer.model.routing.choice import choose_for
from trainer.model.routing.extra import self_attention as weights
from trainer.model.routing.fan import Fan
from trainer.model.routing.streamed import streamed
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, by_child, collect, observe
from trainer.model.routing.votes import sum_of_votes, vote_order, votes
from trainer.model.squash import at_least_float32, lengths, squash_exponential

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = True

LARGEST = 1e15  # of a vote in the attention: its square times I Q is a float32, and its softmax is 0 or 1


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents by one look at how the votes for each parent agree; activations are lengths.

    Arguments and result are those of ``dynamic.route``. The trace has one iteration: its entropy is that of the
    softmax, its couplings are C + B, whose sum over parents is not 1. ``iterations`` and ``stop_gradient`` have no
    meaning here.
    """
    poses_BIP, bias = children.poses_BNP, [extra["bias"]] if "bias" in extra else []
    records = coupling_records if trace else None
    choice = choose_for(config, poses_BIP, transform)
    if choice.implementation == "stored":
        prior_IJ = vote_order(extra["prior"], transform.transforms)
        attend = _attend_compiled if config.xla else _attend
        poses_BJQ, steps = attend(
            votes(poses_BIP, transform), prior_IJ, bias, leaky=config.leaky, records=records, fan=transform.fan
        )
        steps = by_child(steps, transform.transforms)
    else:  # sum_k u_k is a first iteration whose parents say what they got, divided by sqrt(d)
        prior_BJQ = at_least_float32(sum_of_votes(poses_BIP, transform, extra["prior"]))  # U^T B
        rule = Rule(2, config.leaky, temperature=math.sqrt(transform.pose), cumulative=False, fan=transform.fan)
        poses_BJQ, steps = streamed(
            poses_BIP, transform, [prior_BJQ, *bias], _squashed_and_sum, rule, choice, xla=config.xla, records=records
        )
        prior_I1J = extra["prior"][:, tf.newaxis]
        steps = [s._replace(coupling_INJ=s.coupling_INJ + tf.cast(prior_I1J, s.coupling_INJ.dtype)) for s in steps[1:]]
    parents = Capsules(poses_BJQ, lengths(poses_BJQ))
    return parents, collect(steps, children, parents) if trace else None


def _attend(
    votes_IBJQ: tf.Tensor,
    prior_IJ: tf.Tensor,
    bias: Sequence[tf.Tensor],
    *,
    leaky: bool,
    records: int | None,
    fan: Fan | None,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ = at_least_float32(votes_IBJQ)
    prior_IJ = tf.cast(prior_IJ, votes_IBJQ.dtype)
    # A_j = U_j U_j^T / sqrt(d). Only its sum over children is needed, sum_k u_k . u_i = (sum_k u_k) . u_i, so that no
    # [I, I] exists. d is the votes' size, as in the authors' code.
    bounded_IBJQ = tf.clip_by_value(votes_IBJQ, -LARGEST, LARGEST)
    attention_IBJ = tf.reduce_sum(bounded_IBJQ * tf.reduce_sum(bounded_IBJQ, axis=0), axis=-1)
    attention_IBJ /= math.sqrt(votes_IBJQ.shape[-1])
    softmax_IBJ = couplings(attention_IBJ, leaky)  # C: over parents
    coupling_IBJ = softmax_IBJ + prior_IJ[:, tf.newaxis]
    preactivation_BJQ = tf.reduce_sum(coupling_IBJ[..., tf.newaxis] * votes_IBJQ, axis=0)  # s = U^T (C + B)
    for bias_JQ in bias:
        preactivation_BJQ += tf.cast(bias_JQ, votes_IBJQ.dtype)
    steps = []
    if records is not None:
        steps.append(observe(softmax_IBJ, leaky, 0, fan)._replace(coupling_INJ=coupling_IBJ[:, :records]))
    return squash_exponential(preactivation_BJQ), steps


def _squashed_and_sum(
    preactivation_BJQ: tf.Tensor, weights: Sequence[tf.Tensor], rule: Rule
) -> tuple[tf.Tensor, tf.Tensor]:
    """Poses from U^T C, with U^T B and a bias as weights; and sum_k u_k / sqrt(d) from that times 1 / J."""
    outcomes = preactivation_BJQ.shape[1] + rule.leaky
    said_BJQ = tf.clip_by_value(preactivation_BJQ * (outcomes / rule.temperature), -LARGEST, LARGEST)
    for weight in weights:
        preactivation_BJQ += tf.cast(weight, preactivation_BJQ.dtype)
    return squash_exponential(preactivation_BJQ), said_BJQ


_attend_compiled = tf.function(_attend, jit_compile=True)  # without the votes, as in dynamic routing
