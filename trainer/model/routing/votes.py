"""Votes of children for parents, in the layout that makes them one batched matrix product.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, J parents, P/Q pose sizes.
"""

from __future__ import annotations

import tensorflow as tf


def votes(poses_BIP: tf.Tensor, transform_TJPQ: tf.Tensor) -> tf.Tensor:
    """Every child's prediction of every parent.

    Sabour et al. 2017, section 2, equation 2: u_hat(j|i) = W_ij u_i. Children at all N positions share the
    transform of their type; T = I (N = 1) is a transform for each child.

    Args:
        poses_BIP: children, in the dtype of the product.
        transform_TJPQ: T divides I.
    Returns:
        votes_IBJQ: child axis first, as the batched product [T, NB, P] x [T, P, JQ] leaves it.
    """
    transforms, parents, pose_in, pose_out = transform_TJPQ.shape
    children = poses_BIP.shape[1]
    positions = children // transforms
    # only children and transform are transposed: votes are P or B times larger and stay as they are made
    poses_BNTP = tf.reshape(poses_BIP, [-1, positions, transforms, pose_in])
    poses_TXP = tf.reshape(tf.transpose(poses_BNTP, [2, 1, 0, 3]), [transforms, -1, pose_in])
    transform_TPX = tf.reshape(tf.transpose(transform_TJPQ, [0, 2, 1, 3]), [transforms, pose_in, parents * pose_out])
    votes_TXY = tf.matmul(poses_TXP, transform_TPX)  # [T, N*B, J*Q]
    return tf.reshape(votes_TXY, [children, -1, parents, pose_out])


def child_order(per_child: tf.Tensor, transforms: int, axis: int) -> tf.Tensor:
    """Brings an axis from the order of ``votes`` (positions fastest) to that of the children (types fastest)."""
    children = per_child.shape[axis]
    if transforms == children:
        return per_child
    order = [n + t * (children // transforms) for n in range(children // transforms) for t in range(transforms)]
    return tf.gather(per_child, order, axis=axis)
