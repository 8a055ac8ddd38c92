"""Self-attention routing (Mazzia, Salvetti, Chiaberge 2021, "Efficient-CapsNet: capsule network with self-attention
routing", section 3): votes that agree with all other votes for the same parent count for more. No iterations.

Axes: B batch, I children, T transforms, J parents, Q parent pose size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import couplings
from trainer.model.routing.extra import self_attention as weights
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, collect, observe
from trainer.model.routing.votes import child_order, vote_order, votes
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
    votes_IBJQ = votes(children.poses_BNP, transform)
    prior_IJ = vote_order(extra["prior"], transform.transforms)
    attend = _attend_compiled if config.xla else _attend
    poses_BJQ, step = attend(
        votes_IBJQ, prior_IJ, extra.get("bias"), leaky=config.leaky, trace=trace, records=coupling_records
    )
    parents = Capsules(poses_BJQ, lengths(poses_BJQ))
    if step is None:
        return parents, None
    step = step._replace(coupling_INJ=child_order(step.coupling_INJ, transform.transforms, axis=0))
    return parents, collect([step], children, parents)


def _attend(
    votes_IBJQ: tf.Tensor, prior_IJ: tf.Tensor, bias_JQ: tf.Tensor | None, *, leaky: bool, trace: bool, records: int
) -> tuple[tf.Tensor, CouplingTrace | None]:
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
    if bias_JQ is not None:
        preactivation_BJQ += tf.cast(bias_JQ, votes_IBJQ.dtype)
    step = None
    if trace:
        step = observe(softmax_IBJ, leaky, 0)._replace(coupling_INJ=coupling_IBJ[:, :records])
    return squash_exponential(preactivation_BJQ), step


_attend_compiled = tf.function(_attend, jit_compile=True)  # without the votes, as in dynamic routing
