"""Labels of class x angle: as many as one wants from the same images, to see what their number alone does.

Each record is turned about its centre by one of ``count`` angles, 360 degrees / count apart; which, is drawn for each
epoch in training and once in tests. Label = class x count + angle. Between pixels values are interpolated linearly;
what comes from outside is 0, so images with an empty ground are the right ones for it.

Axes: B batch, H W image, C channels, D draws.
"""

from __future__ import annotations

import math

import tensorflow as tf

from trainer.data import affine, augment


def turned(images_BHWC: tf.Tensor, label_B: tf.Tensor, draws_BD: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """(images uint8 [B, H, W, C], labels int32 [B] in 0..classes x count - 1)."""
    angle_B = augment.whole(draws_BD[:, augment.ANGLE], count)
    radians_B = tf.cast(angle_B, tf.float64) * (2 * math.pi / count)
    return affine.rotated(images_BHWC, radians_B), label_B * count + tf.cast(angle_B, label_B.dtype)
