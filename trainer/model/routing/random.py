"""Random couplings: the control whose children are spread unevenly, but by nothing that they say.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import couplings
from trainer.model.routing.extra import random as weights
from trainer.model.routing.trace import RoutingTrace, collect, observe
from trainer.model.routing.votes import sum_of_votes
from trainer.model.squash import at_least_float32, lengths, squash

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = True


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents with c_ij = softmax over parents of fixed normal b_ij; iterations have no meaning here.

    Arguments and result are those of ``dynamic.route``; the trace has one iteration.
    """
    coupling_IJ = couplings(extra["routing_logits"][tf.newaxis], config.leaky)[0]
    preactivation_BJQ = at_least_float32(sum_of_votes(children.poses_BNP, transform, coupling_IJ))
    if "bias" in extra:
        preactivation_BJQ += tf.cast(extra["bias"], preactivation_BJQ.dtype)
    poses_BJQ = squash(preactivation_BJQ)
    found = Capsules(poses_BJQ, lengths(poses_BJQ))
    if not trace:
        return found, None
    coupling_IBJ = tf.repeat(tf.cast(coupling_IJ, poses_BJQ.dtype)[:, tf.newaxis], tf.shape(poses_BJQ)[0], axis=1)
    return found, collect([observe(coupling_IBJ, config.leaky, coupling_records, transform.fan)], children, found)
