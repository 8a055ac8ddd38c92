"""How an image becomes what the network sees: to size, and at training time at random.

Every draw is a hash of (seed, epoch, record id), computed before the images are touched: an augmented record is the
same in any batch, on any rank, after any resume. Images stay uint8 until all is done.

Axes: B batch, H W grid, C channels, D draws of a record.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import AugmentConfig

DRAWS = 15
SHIFT_Y, SHIFT_X, FLIP, CROP_Y, CROP_X, AREA, ASPECT = range(7)
PARTNER, OTHER_Y, OTHER_X = range(7, 10)  # of overlap: which record, and its shift
ROTATION, SHEAR, SCALE_Y, SCALE_X = range(10, 14)  # of affine
ANGLE = 14  # of rotations

SMALLEST_AREA = 0.08
LOG_ASPECT = math.log(4 / 3)  # width to height from 3:4 to 4:3
CENTRAL_SIDE = 0.875  # of the shorter side, in tests with random_resized_crop

GOLDEN = 0x9E3779B97F4A7C15
UINT64 = 2**64 - 1


def draws(seed: int, epoch: int, ids_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for each record [B, D]; a column means the same thing in every use."""
    key = _mixed(_mixed(np.array([seed], np.uint64)) + np.uint64(epoch * GOLDEN & UINT64))
    record_B = _mixed(key + ids_B.astype(np.uint64) * np.uint64(GOLDEN))
    steps_D = np.array([number * GOLDEN & UINT64 for number in range(1, DRAWS + 1)], np.uint64)
    bits_BD = _mixed(record_B[:, None] + steps_D)
    uniform_BD: NDArray[np.float64] = (bits_BD >> np.uint64(11)) * 2.0**-53
    return uniform_BD


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: each input bit changes each output bit in about half of all cases."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def random_fit(image_HWC: tf.Tensor, size: int, resize: str, draws_D: tf.Tensor) -> tf.Tensor:
    """One image uint8 [H, W, C] as [size, size, C], by ``AugmentConfig.resize``.

    random_resized_crop takes 8 to 100 % of the area at a ratio of sides from 3:4 to 4:3, cut to the image's sides.

    Raises:
        tf.errors.InvalidArgumentError: the image does not have that size (none) or is smaller (crop).
    """
    if resize == "none":
        return _checked(image_HWC, size)
    shape = tf.shape(image_HWC)
    if resize == "crop":
        top = whole(draws_D[CROP_Y], shape[0] - size + 1)
        left = whole(draws_D[CROP_X], shape[1] - size + 1)
        return _checked(_cut(image_HWC, top, left, size, size), size)
    if resize == "whole":
        return resized(image_HWC, size)
    return resized(_cut(image_HWC, *random_window(shape[:2], draws_D)), size)


def random_window(sides: tf.Tensor, draws_D: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the part that random_resized_crop takes of an image of [height, width]."""
    lengths = tf.cast(sides, tf.float64)
    area = (SMALLEST_AREA + (1 - SMALLEST_AREA) * draws_D[AREA]) * lengths[0] * lengths[1]
    aspect = tf.exp((2 * draws_D[ASPECT] - 1) * tf.constant(LOG_ASPECT, tf.float64))
    height = tf.cast(tf.clip_by_value(tf.round(tf.sqrt(area / aspect)), 1.0, lengths[0]), tf.int32)
    width = tf.cast(tf.clip_by_value(tf.round(tf.sqrt(area * aspect)), 1.0, lengths[1]), tf.int32)
    top = whole(draws_D[CROP_Y], sides[0] - height + 1)
    left = whole(draws_D[CROP_X], sides[1] - width + 1)
    return top, left, height, width


def central_window(sides: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the part that tests take with random_resized_crop."""
    shorter = tf.cast(tf.minimum(sides[0], sides[1]), tf.float64)
    side = tf.maximum(tf.cast(tf.round(CENTRAL_SIDE * shorter), tf.int32), 1)
    return (sides[0] - side) // 2, (sides[1] - side) // 2, side, side


def central_fit(images: tf.Tensor, size: int, resize: str) -> tf.Tensor:
    """Images uint8 [..., H, W, C], one or a batch, as [..., size, size, C]: what tests and the library see.

    crop takes the central part; whole resizes all of it; random_resized_crop resizes a central square of 87.5 % of the
    shorter side.

    Raises:
        tf.errors.InvalidArgumentError: as ``random_fit``.
    """
    if resize == "none":
        return _checked(images, size)
    shape = tf.shape(images)
    height, width = shape[-3], shape[-2]
    if resize == "crop":
        return _checked(_cut(images, (height - size) // 2, (width - size) // 2, size, size), size)
    if resize == "whole":
        return resized(images, size)
    return resized(_cut(images, *central_window(tf.stack([height, width]))), size)


def shifted_and_flipped(images_BHWC: tf.Tensor, draws_BD: tf.Tensor, augment: AugmentConfig) -> tf.Tensor:
    """Each image flipped left to right or not, then shifted by up to ``shift`` pixels each way, zeros coming in."""
    height, width = images_BHWC.shape[1:3]
    if augment.flip:
        images_BHWC = tf.where(draws_BD[:, FLIP, None, None, None] < 0.5, images_BHWC[:, :, ::-1], images_BHWC)
    if augment.shift:
        shift = augment.shift
        images_BHWC = tf.pad(images_BHWC, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
        rows_BH = whole(draws_BD[:, SHIFT_Y, None], 2 * shift + 1) + tf.range(height)
        columns_BW = whole(draws_BD[:, SHIFT_X, None], 2 * shift + 1) + tf.range(width)
        images_BHWC = tf.gather(tf.gather(images_BHWC, rows_BH, axis=1, batch_dims=1), columns_BW, axis=2, batch_dims=1)
    return images_BHWC


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """uint8 0..255 as float32 0..1."""
    return tf.cast(images, tf.float32) / 255.0


def whole(draw: tf.Tensor, below: tf.Tensor | int) -> tf.Tensor:
    """A uniform draw as a whole number in 0..below-1."""
    return tf.cast(tf.floor(draw * tf.cast(below, tf.float64)), tf.int32)


def _cut(
    images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """A window of each image; a negative start, which slicing would take from the end, is an error here."""
    whole = [0] * (images.shape.rank - 3)
    begin = tf.stack([*whole, top, left, 0])
    return tf.slice(images, begin, tf.stack([*(-1 for _ in whole), height, width, -1]))


def resized(images: tf.Tensor, size: int, *, antialias: bool = True) -> tf.Tensor:
    """Images uint8 [..., H, W, C] as [..., size, size, C]; ``antialias`` matters where they become smaller."""
    exact = tf.image.resize(images, (size, size), antialias=antialias)
    return tf.cast(tf.clip_by_value(tf.round(exact), 0.0, 255.0), tf.uint8)


def _checked(images: tf.Tensor, size: int) -> tf.Tensor:
    batch = [None] * (images.shape.rank - 3)
    return tf.ensure_shape(images, [*batch, size, size, images.shape[-1]])
