"""Votes of children for parents, in the layout that makes them one batched matrix product.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, J parents, P/Q pose sizes.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.model.routing import Transform


def votes(poses_BIP: tf.Tensor, transform: Transform) -> tf.Tensor:
    """Every child's prediction of every parent.

    Sabour et al. 2017, section 2, equation 2: u_hat(j|i) = W_ij u_i. Children at all N positions share the
    transform of their type; T = I (N = 1) is a transform for each child.

    Args:
        poses_BIP: children, in the dtype of the product.
        transform: T divides I.
    Returns:
        votes_IBJQ: child axis first, as the batched product [T, NB, P] x [T, P, JQ] leaves it; see ``child_order``.
    """
    transforms, parents, pose = transform.transforms, transform.parents, transform.pose
    children, pose_in = poses_BIP.shape[1:]
    # only children are transposed: votes are P or B times larger and stay as they are made
    poses_BNTP = tf.reshape(poses_BIP, [-1, children // transforms, transforms, pose_in])
    poses_TXP = tf.reshape(tf.transpose(poses_BNTP, [2, 1, 0, 3]), [transforms, -1, pose_in])
    votes_TXY = tf.matmul(poses_TXP, whole(transform))  # [T, N*B, J*Q]
    return tf.reshape(votes_TXY, [children, -1, parents, pose])


def whole(transform: Transform) -> tf.Tensor:
    """All parts of a transform as one tensor of matrices [T, P, JQ]."""
    parts = [tf.reshape(part, [part.shape[0], part.shape[1], -1]) for part in transform.parts_TPJQ]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def vote_order(per_child_IX: tf.Tensor, transforms: int) -> tf.Tensor:
    """Brings the first of two axes from the order of the children (types fastest) to that of ``votes``."""
    children, *rest = per_child_IX.shape
    if transforms == children:
        return per_child_IX
    per_child_NTX = tf.reshape(per_child_IX, [children // transforms, transforms, rest[0] or -1])
    return tf.reshape(tf.transpose(per_child_NTX, [1, 0, 2]), [children, rest[0] or -1])


def child_order(per_child: tf.Tensor, transforms: int, axis: int) -> tf.Tensor:
    """Brings an axis from the order of ``votes`` (positions fastest) to that of the children (types fastest)."""
    children = per_child.shape[axis]
    if transforms == children:
        return per_child
    order = [n + t * (children // transforms) for n in range(children // transforms) for t in range(transforms)]
    return tf.gather(per_child, order, axis=axis)


def sum_of_votes(poses_BIP: tf.Tensor, transform: Transform, coupling_IJ: tf.Tensor) -> tf.Tensor:
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
