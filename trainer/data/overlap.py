"""Crowded scenes: two images, each shifted, overlaid on a larger canvas (Sabour et al. 2017, section 6).

The canvas has ``shift`` pixels more than the images on each side. Where strokes cross, gray images add up and are
clipped at 255. Natural images have no empty ground: where both lie a pixel is the mean of the two, halves rounded up,
where one lies it is that one's, elsewhere 0.

Axes: B batch, H W image, Y X canvas, C channels, D draws.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.data import augment


def scenes(first_BHWC: tf.Tensor, second_BHWC: tf.Tensor, draws_BD: tf.Tensor, shift: int) -> tuple[tf.Tensor, ...]:
    """Scenes whose shifts are drawn: as ``overlaid``."""
    columns = [augment.SHIFT_Y, augment.SHIFT_X, augment.OTHER_Y, augment.OTHER_X]
    corners_B4 = augment.whole(tf.gather(draws_BD, columns, axis=1), 2 * shift + 1)
    return overlaid(first_BHWC, second_BHWC, corners_B4[:, :2], corners_B4[:, 2:], shift)


def overlaid(
    first_BHWC: tf.Tensor, second_BHWC: tf.Tensor, first_B2: tf.Tensor, second_B2: tf.Tensor, shift: int
) -> tuple[tf.Tensor, ...]:
    """(canvas uint8 [B, Y, X, C], both images alone on such a canvas uint8 [B, 2, Y, X, C]).

    Args:
        first_B2: row and column of the canvas, 0 to 2 shift, where the first image's corner is.
    """
    first_BYXC, second_BYXC = placed(first_BHWC, first_B2, shift), placed(second_BHWC, second_B2, shift)
    sum_BYXC = tf.cast(first_BYXC, tf.int32) + tf.cast(second_BYXC, tf.int32)
    if first_BHWC.shape[-1] == 1:
        canvas_BYXC = tf.minimum(sum_BYXC, 255)
    else:
        here_BHW1 = tf.ones_like(first_BHWC[..., :1])
        both_BYX1 = placed(here_BHW1, first_B2, shift) * placed(here_BHW1, second_B2, shift)
        canvas_BYXC = tf.where(both_BYX1 > 0, (sum_BYXC + 1) // 2, sum_BYXC)
    return tf.cast(canvas_BYXC, tf.uint8), tf.stack([first_BYXC, second_BYXC], axis=1)


def placed(images_BHWC: tf.Tensor, corners_B2: tf.Tensor, shift: int) -> tf.Tensor:
    """Each image with its corner at a place on a canvas [B, Y, X, C] of zeros."""
    height, width = images_BHWC.shape[1:3]
    most = 2 * shift
    images_BHWC = tf.pad(images_BHWC, [[0, 0], [most, most], [most, most], [0, 0]])
    rows_BY = most - corners_B2[:, :1] + tf.range(height + most)
    columns_BX = most - corners_B2[:, 1:] + tf.range(width + most)
    return tf.gather(tf.gather(images_BHWC, rows_BY, axis=1, batch_dims=1), columns_BX, axis=2, batch_dims=1)
