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
    """Parents with c_ij = softmax over parents of fixed normal b_ij; iterations have no meaning here.

    Arguments and result are those of ``dynamic.route``; the trace has one iteration.
    """
    coupling_IJ = couplings(extra["routing_logits"][tf.newaxis], config.leaky)[0]
    preactivation_BJQ = at_least_float32(_weighted_sum(children.poses_BNP, transform, coupling_IJ))
    if "bias" in extra:
        preactivation_BJQ += tf.cast(extra["bias"], preactivation_BJQ.dtype)
    poses_BJQ = squash(preactivation_BJQ)
    found = Capsules(poses_BJQ, lengths(poses_BJQ))
    if not trace:
        return found, None
    coupling_IBJ = tf.repeat(tf.cast(coupling_IJ, poses_BJQ.dtype)[:, tf.newaxis], tf.shape(poses_BJQ)[0], axis=1)
    return found, collect([observe(coupling_IBJ, config.leaky, coupling_records)], children, found)


def _weighted_sum(poses_BIP: tf.Tensor, transform: Transform, coupling_IJ: tf.Tensor) -> tf.Tensor:
    """sum_i c_ij W_ij u_i, without votes: the couplings are the same for all records."""
    transforms, parents, pose = transform.transforms, transform.parents, transform.pose
    children, pose_in = poses_BIP.shape[1:]
    coupling_IJ = tf.cast(coupling_IJ, poses_BIP.dtype)
    if transforms == children:  # one dense product with the transforms that the couplings scale
        scaled_IPJQ = tf.reshape(whole(transform), [children, pose_in, parents, pose])
        scaled_IPJQ *= coupling_IJ[:, tf.newaxis, :, tf.newaxis]
        scaled_XY = tf.reshape(scaled_IPJQ, [children * pose_in, parents * pose])
        return tf.reshape(tf.matmul(tf.reshape(poses_BIP, [-1, children * pose_in]), scaled_XY), [-1, parents, pose])
    # positions are summed for each parent before the transform that they share
    poses_BNTP = tf.reshape(poses_BIP, [-1, children // transforms, transforms, pose_in])
    coupling_NTJ = tf.reshape(coupling_IJ, [children // transforms, transforms, parents])
    summed_TBPJ = tf.einsum("bntp,ntj->tbpj", poses_BNTP, coupling_NTJ)
    transform_TPJQ = tf.reshape(whole(transform), [transforms, pose_in, parents, pose])
    return tf.einsum("tbpj,tpjq->bjq", summed_TBPJ, transform_TPJQ)
