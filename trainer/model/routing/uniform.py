"""Uniform couplings: the control without routing. Equal to the first iteration of dynamic routing.

Axes: B batch, I children, N positions, T transforms, I = N x T, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing.dynamic import weights
from trainer.model.routing.trace import RoutingTrace, collect, observe
from trainer.model.squash import at_least_float32, squash

__all__ = ["route", "weights"]


def route(
    poses_BIP: tf.Tensor,
    transform_TJPQ: tf.Tensor,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[tf.Tensor, RoutingTrace | None]:
    """Poses of the parents with c_ij = 1/J, or 1/(J+1) with ``leaky``; iterations have no meaning here.

    Arguments and result are those of ``dynamic.route``; the trace has one iteration.
    """
    transforms, parents, pose_in, pose_out = transform_TJPQ.shape
    children = poses_BIP.shape[1]
    share = 1.0 / (parents + config.leaky)
    # sum_i c u_hat(j|i) = c sum_t W_tj (sum_n u_nt): one dense product, no votes
    poses_BTP = tf.reduce_sum(tf.reshape(poses_BIP, [-1, children // transforms, transforms, pose_in]), axis=1)
    transform_XY = tf.reshape(tf.transpose(transform_TJPQ, [0, 2, 1, 3]), [transforms * pose_in, parents * pose_out])
    summed_BY = at_least_float32(tf.matmul(tf.reshape(poses_BTP, [-1, transforms * pose_in]), transform_XY))
    preactivation_BJQ = share * tf.reshape(summed_BY, [-1, parents, pose_out])
    if "bias" in extra:
        preactivation_BJQ += tf.cast(extra["bias"], preactivation_BJQ.dtype)
    poses_BJQ = squash(preactivation_BJQ)
    if not trace:
        return poses_BJQ, None
    coupling_IBJ = share * tf.ones([children, tf.shape(poses_BIP)[0], parents], poses_BJQ.dtype)
    return poses_BJQ, collect([observe(coupling_IBJ, config.leaky, coupling_records)], poses_BIP, poses_BJQ)
