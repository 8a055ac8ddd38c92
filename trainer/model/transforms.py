"""Transforms as every routing algorithm takes them, from what a layer learns.

Axes: B batch, I children = N positions x T transforms, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import tensorflow as tf


def of_matrices(transform_TPJQ: tf.Tensor, rows: int) -> tf.Tensor:
    """W of matrix poses as a transform of vectors: vec(M W) = vec(M) (1 x W), with a block W for each row of M.

    Hinton, Sabour, Frosst 2018, section 3: V_ij = M_i W_ij. Most of the blocks are 0; on a CPU the larger product and
    the product by rows, whose votes are then to be transposed, take the same time.

    Args:
        transform_TPJQ: [T, P/rows, J, Q/rows].
    Returns:
        [T, P, J, Q]
    """
    if rows == 1:
        return transform_TPJQ
    transforms, row, parents, column = transform_TPJQ.shape
    unit = tf.eye(rows, dtype=transform_TPJQ.dtype)
    blocks = transform_TPJQ[:, tf.newaxis, :, :, tf.newaxis, :] * unit[:, tf.newaxis, tf.newaxis, :, tf.newaxis]
    return tf.reshape(blocks, [transforms, rows * row, parents, rows * column])


def with_coordinates(poses_BIP: tf.Tensor, side: int) -> tf.Tensor:
    """Row and column of each child's position as two further numbers of its pose: [B, I, P] -> [B, I, P + 2].

    Coordinates are of the centres of positions, 0 to 1 over a grid of side x side, types fastest. With
    ``onto_coordinates`` this is coordinate addition, for every routing algorithm without its knowing of it.
    """
    types = poses_BIP.shape[1] // side**2
    centres = [(index + 0.5) / side for index in range(side)]
    where_I2 = [[row, column] for row in centres for column in centres for _ in range(types)]
    where_BI2 = tf.zeros_like(poses_BIP[..., :1]) + tf.constant(where_I2, poses_BIP.dtype)
    return tf.concat([poses_BIP, where_BI2], axis=-1)


def onto_coordinates(transform_TPJQ: tf.Tensor, rows: int) -> tf.Tensor:
    """A transform that also adds the two last numbers of a pose to two of each vote: [T, P, J, Q] -> [T, P + 2, J, Q].

    Hinton, Sabour, Frosst 2018, section 4: to the first two of the right-hand column of the vote matrix; of a vector
    to the first two.
    """
    transforms, _, parents, pose = transform_TPJQ.shape
    width = pose // rows
    places = [0, 1] if rows == 1 else [width - 1, 2 * width - 1]
    where_2Q = tf.one_hot(places, pose, dtype=transform_TPJQ.dtype)
    where_T2JQ = tf.tile(where_2Q[tf.newaxis, :, tf.newaxis], [transforms, 1, parents, 1])
    return tf.concat([transform_TPJQ, where_T2JQ], axis=1)
