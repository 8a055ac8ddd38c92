"""Uniform couplings: the control without routing. Equal to the first iteration of dynamic routing.

Axes: B batch, I children, N positions, T transforms, I = N x T, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.extra import uniform as weights
from trainer.model.routing.trace import RoutingTrace, collect, observe
from trainer.model.routing.votes import whole
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
    """Parents with c_ij = 1/J, or 1/(J+1) with ``leaky``; iterations have no meaning here.

    Arguments and result are those of ``dynamic.route``; the trace has one iteration.
    """
    transforms, parents, pose = transform.transforms, transform.parents, transform.pose
    count, pose_in = children.poses_BNP.shape[1:]
    share = 1.0 / (parents + config.leaky)
    # sum_i c u_hat(j|i) = c sum_t W_tj (sum_n u_nt): one dense product, no votes
    poses_BTP = tf.reduce_sum(tf.reshape(children.poses_BNP, [-1, count // transforms, transforms, pose_in]), axis=1)
    transform_XY = tf.reshape(whole(transform), [transforms * pose_in, parents * pose])
    summed_BY = at_least_float32(tf.matmul(tf.reshape(poses_BTP, [-1, transforms * pose_in]), transform_XY))
    preactivation_BJQ = share * tf.reshape(summed_BY, [-1, parents, pose])
    if "bias" in extra:
        preactivation_BJQ += tf.cast(extra["bias"], preactivation_BJQ.dtype)
    poses_BJQ = squash(preactivation_BJQ)
    found = Capsules(poses_BJQ, lengths(poses_BJQ))
    if not trace:
        return found, None
    coupling_IBJ = share * tf.ones([count, tf.shape(poses_BJQ)[0], parents], poses_BJQ.dtype)
    return found, collect([observe(coupling_IBJ, config.leaky, coupling_records, transform.fan)], children, found)
