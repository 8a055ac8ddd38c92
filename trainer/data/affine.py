"""Images turned, sheared, scaled and shifted at random, as affNIST does with MNIST: what a network has not trained on.

A point p of the image, seen from its centre, comes to lie at R S D p + t: D scales each axis by 1 - scale to 1 + scale,
S moves each row sideways by up to ``shear`` of its height, R turns by up to ``rotation`` degrees, t is up to ``shift``
pixels each way; all uniform. Between pixels values are interpolated linearly; what comes from outside is 0.

Axes: B batch, H W image, C channels, D draws.
"""

from __future__ import annotations

import math

import tensorflow as tf

from trainer.config import AffineConfig
from trainer.data import augment


def transformed(images_BHWC: tf.Tensor, draws_BD: tf.Tensor, bounds: AffineConfig) -> tf.Tensor:
    """Images uint8 [B, H, W, C], each under its own transform."""
    return _moved(images_BHWC, backward(draws_BD, bounds, *images_BHWC.shape[1:3]))


def rotated(images_BHWC: tf.Tensor, radians_B: tf.Tensor) -> tf.Tensor:
    """Images uint8 [B, H, W, C], each turned about its centre; y axis down, so that +x turns towards +y."""
    height, width = images_BHWC.shape[1:3]
    cos, sin = tf.cos(radians_B), tf.sin(radians_B)
    return _moved(images_BHWC, _about_centre(cos, sin, -sin, cos, 0.0, 0.0, height, width))


def _moved(images_BHWC: tf.Tensor, backward_B8: tf.Tensor) -> tf.Tensor:
    height, width = images_BHWC.shape[1:3]
    moved_BHWC = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images_BHWC, tf.float32),
        transforms=backward_B8,
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.cast(tf.clip_by_value(tf.round(moved_BHWC), 0.0, 255.0), tf.uint8)


def backward(draws_BD: tf.Tensor, bounds: AffineConfig, height: int, width: int) -> tf.Tensor:
    """Where each pixel (x, y) comes from: (a x + b y + c, d x + e y + f), as float32 [B, 8]: a b c d e f 0 0."""

    def between(column: int, most: float) -> tf.Tensor:
        return (2 * tf.cast(draws_BD[:, column], tf.float64) - 1) * most

    angle = between(augment.ROTATION, math.radians(bounds.rotation))
    cos, sin, shear = tf.cos(angle), tf.sin(angle), between(augment.SHEAR, bounds.shear)
    scale_x, scale_y = 1 + between(augment.SCALE_X, bounds.scale), 1 + between(augment.SCALE_Y, bounds.scale)
    # the inverse of R S D, by rows: y axis down
    a, b = (cos + shear * sin) / scale_x, (sin - shear * cos) / scale_x
    d, e = -sin / scale_y, cos / scale_y
    shift_x, shift_y = between(augment.SHIFT_X, bounds.shift), between(augment.SHIFT_Y, bounds.shift)
    return _about_centre(a, b, d, e, shift_x, shift_y, height, width)


def _about_centre(
    a: tf.Tensor,
    b: tf.Tensor,
    d: tf.Tensor,
    e: tf.Tensor,
    shift_x: tf.Tensor | float,
    shift_y: tf.Tensor | float,
    height: int,
    width: int,
) -> tf.Tensor:
    """As ``backward``, of the inverse matrix (a b; d e) and a shift, both seen from the centre."""
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    from_x, from_y = centre_x + shift_x, centre_y + shift_y
    c = centre_x - a * from_x - b * from_y
    f = centre_y - d * from_x - e * from_y
    zero = tf.zeros_like(a)
    return tf.cast(tf.stack([a, b, c, d, e, f, zero, zero], axis=1), tf.float32)
