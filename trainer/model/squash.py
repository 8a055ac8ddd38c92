"""Nonlinearities of poses and capsule lengths, finite in value and gradient for every finite input.

Axes: the pose axis is the last; all others are kept.
"""

from __future__ import annotations

import tensorflow as tf

EPSILON = 1e-12  # under roots: bends only lengths below about 1e-6, and 1/sqrt of it is far from float32's end

VARIANCE_EPSILON = 1e-5  # of layer normalisation, as most implementations have it


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


def squash_exponential(preactivation: tf.Tensor) -> tf.Tensor:
    """The same for which short vectors keep their length: its slope at 0 is 1, and it is steeper on the way to 1.

    Mazzia, Salvetti, Chiaberge 2021, "Efficient-CapsNet", section 3: v = (1 - 1 / e^|s|) * s / |s|.

    Args:
        preactivation: [..., Q], s of the paper.
    Returns:
        [..., Q], v of the paper, in at least float32.
    """
    s = at_least_float32(preactivation)
    scale = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(s), axis=-1, keepdims=True), 1.0))  # as in squash
    inverse = 1.0 / scale
    unit = s * inverse
    length = tf.sqrt(tf.reduce_sum(unit * unit, axis=-1, keepdims=True) + EPSILON * inverse * inverse)  # |s| / scale
    return -tf.math.expm1(-scale * length) * unit / length


def lengths(poses: tf.Tensor) -> tf.Tensor:
    """Euclidean length of each pose, [..., Q] -> [...], in at least float32; its gradient at 0 is 0."""
    poses = at_least_float32(poses)
    return tf.sqrt(tf.reduce_sum(poses * poses, axis=-1) + EPSILON)


def layer_norm(preactivation: tf.Tensor) -> tf.Tensor:
    """Each vector less its mean, over its standard deviation, without gain and shift.

    Ba, Kiros, Hinton 2016, "Layer normalization", equation 4.

    Args:
        preactivation: [..., Q].
    Returns:
        [..., Q], in at least float32.
    """
    s = at_least_float32(preactivation)
    scale = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(s), axis=-1, keepdims=True), 1.0))  # as in squash
    inverse = 1.0 / scale
    unit = s * inverse
    unit -= tf.reduce_mean(unit, axis=-1, keepdims=True)
    variance = tf.reduce_mean(unit * unit, axis=-1, keepdims=True)
    return unit * tf.math.rsqrt(variance + VARIANCE_EPSILON * inverse * inverse)
