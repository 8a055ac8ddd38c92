"""The squash nonlinearity and capsule lengths, finite in value and gradient for every finite input.

Axes: the pose axis is the last; all others are kept.
"""

from __future__ import annotations

import tensorflow as tf

EPSILON = 1e-12  # under roots: bends only lengths below about 1e-6, and 1/sqrt of it is far from float32's end


def at_least_float32(tensor: tf.Tensor) -> tf.Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def squash(preactivation: tf.Tensor) -> tf.Tensor:
    """Shrinks each vector to a length below 1 and keeps its direction.

    Sabour et al. 2017, section 2, equation 1: v = |s|^2 / (1 + |s|^2) * s / |s|.

    Args:
        preactivation: [..., Q], s of the paper.
    Returns:
        [..., Q], v of the paper, in at least float32.
    """
    s = at_least_float32(preactivation)
    # a power of the input's own size keeps |s|^2 finite; v does not depend on it, so it carries no gradient
    scale = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(s), axis=-1, keepdims=True), 1.0))
    inverse = 1.0 / scale
    unit = s * inverse
    square = tf.reduce_sum(unit * unit, axis=-1, keepdims=True)  # |s|^2 / scale^2
    shrink = square / (square + inverse * inverse)  # |s|^2 / (1 + |s|^2)
    return shrink * unit / tf.sqrt(square + EPSILON * inverse * inverse)


def lengths(poses: tf.Tensor) -> tf.Tensor:
    """Euclidean length of each pose, [..., Q] -> [...], in at least float32; its gradient at 0 is 0."""
    poses = at_least_float32(poses)
    return tf.sqrt(tf.reduce_sum(poses * poses, axis=-1) + EPSILON)
