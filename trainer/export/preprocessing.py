"""Images of any size that a run takes, as its network sees them: ``data/augment.central_fit`` in Keras operations.

Axes: B batch, H W image, C channels, O rows or columns of the result.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import KerasTensor, ops

from trainer.data.augment import CENTRAL_SIDE


def images_input(size: int, channels: int, resize: str) -> KerasTensor:
    """uint8 [B, H, W, C]; H and W are left open where the run brings images to size."""
    side = size if resize == "none" else None
    return keras.Input((side, side, channels), dtype="uint8", name="images")


def fitted(images_BHWC: KerasTensor, size: int, resize: str) -> KerasTensor:
    """uint8 [B, H, W, C] to float32 [B, size, size, C] in 0..1, by ``AugmentConfig.resize``."""
    if resize == "crop":
        images_BHWC = _central_crop(images_BHWC, size)
    elif resize == "whole":
        images_BHWC = _resized(images_BHWC, _count(_rows(images_BHWC)), _count(_columns(images_BHWC)), size)
    elif resize == "random_resized_crop":
        shorter = ops.minimum(_count(_rows(images_BHWC)), _count(_columns(images_BHWC)))
        side = ops.maximum(ops.round(CENTRAL_SIDE * shorter), 1.0)
        images_BHWC = _resized(images_BHWC, side, side, size)
    return ops.cast(images_BHWC, "float32") / 255.0


def _central_crop(images_BHWC: KerasTensor, size: int) -> KerasTensor:
    for axis, positions in ((1, _rows(images_BHWC)), (2, _columns(images_BHWC))):
        first = ops.floor((_count(positions) - size) / 2)
        chosen_O = ops.cast(first + np.arange(size, dtype=np.float32), "int32")
        images_BHWC = ops.take(images_BHWC, chosen_O, axis=axis)
    return images_BHWC


def _resized(images_BHWC: KerasTensor, height: KerasTensor, width: KerasTensor, size: int) -> KerasTensor:
    """The central part of a height and width, bilinearly with antialiasing and rounded, as float32 in 0..255."""
    wide_BHWC = ops.cast(images_BHWC, "float32")
    wide_BOWC = ops.einsum("oh,bhwc->bowc", _resampling(_rows(images_BHWC), height, size), wide_BHWC)
    return ops.round(ops.einsum("ow,bhwc->bhoc", _resampling(_columns(images_BHWC), width, size), wide_BOWC))


def _resampling(positions_X: KerasTensor, side: KerasTensor, size: int) -> KerasTensor:
    """What each pixel counts [O, X] in a line of ``size`` pixels that is made of the central ``side`` ones.

    A triangle around the centre of the new pixel, as wide as a new pixel but at least as an old one; nothing outside
    that part.
    """
    first = ops.floor((_count(positions_X) - side) / 2)
    scale = side / size
    centres_O1 = first + scale * (np.arange(size, dtype=np.float32)[:, None] + 0.5)
    pixels_X = positions_X + 0.5
    weights_OX = ops.maximum(1.0 - ops.abs(pixels_X - centres_O1) / ops.maximum(scale, 1.0), 0.0)
    inside_X = ops.logical_and(positions_X >= first, positions_X < first + side)
    weights_OX = weights_OX * ops.cast(inside_X, "float32")
    return weights_OX / ops.sum(weights_OX, axis=-1, keepdims=True)


def _rows(images_BHWC: KerasTensor) -> KerasTensor:
    """0, 1, ... H - 1 as float32; from the pixels, as H is known only when there are images."""
    return ops.cumsum(ops.ones_like(images_BHWC[0, :, 0, 0], dtype="float32")) - 1.0


def _columns(images_BHWC: KerasTensor) -> KerasTensor:
    return ops.cumsum(ops.ones_like(images_BHWC[0, 0, :, 0], dtype="float32")) - 1.0


def _count(positions_X: KerasTensor) -> KerasTensor:
    return positions_X[-1] + 1.0
