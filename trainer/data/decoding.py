"""From serialised records to images of the model's size, in tf.data: parse, decode, fit.

Axes: B records, H W grid, C channels, D draws of a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import tensorflow as tf

from trainer.config import RunConfig
from trainer.data import augment
from trainer.data.index import Index, Split
from trainer.data.source import Source

RATIOS = (1, 2, 4, 8)
JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Reading:
    """What is read, from where, and for what."""

    config: RunConfig
    index: Index
    source: Source
    training: bool

    @property
    def split(self) -> Split:
        return self.source.split


def parsed(serialized_B: tf.Tensor, index: Index) -> tuple[tf.Tensor, tf.Tensor]:
    """(encoded images string [B], labels int32 [B], from 0)."""
    layout, classes = index.layout, tf.constant(len(index.classes), tf.int64)
    features = tf.io.parse_example(
        serialized_B,
        {layout.image: tf.io.FixedLenFeature((), tf.string), layout.label: tf.io.FixedLenFeature((), tf.int64)},
    )
    label_B = features[layout.label] - layout.first_label
    in_range = [tf.debugging.assert_non_negative(label_B), tf.debugging.assert_less(label_B, classes)]
    with tf.control_dependencies(in_range):
        return features[layout.image], tf.cast(label_B, tf.int32)


def fitted(encoded: tf.Tensor, draws_D: tf.Tensor, reading: Reading) -> tf.Tensor:
    """One encoded image as uint8 [size, size, C]; of a JPEG only the part that is used is decoded, if it can be.

    Raises:
        tf.errors.InvalidArgumentError: not an image, or not of a size that can be used.
    """
    return _fitted(encoded, draws_D if reading.training else None, reading.config, reading.config.source_size)


def fitted_for_test(encoded: tf.Tensor, config: RunConfig, size: int) -> tf.Tensor:
    """As ``fitted`` of a test record, to another size than that of the data set's images."""
    return _fitted(encoded, None, config, size)


def _fitted(encoded: tf.Tensor, draws_D: tf.Tensor | None, config: RunConfig, size: int) -> tf.Tensor:
    """At random, or without draws as tests see it."""
    channels, resize = config.model.channels, config.data.augment.resize

    def whole() -> tf.Tensor:
        image_HWC = tf.io.decode_png(encoded, channels=channels)  # takes JPEG as well
        if draws_D is not None:
            return augment.random_fit(image_HWC, size, resize, draws_D)
        return augment.central_fit(image_HWC, size, resize)

    if resize != "random_resized_crop" or not config.data.scaled_decoding:
        return whole()

    def part() -> tf.Tensor:
        sides = tf.io.extract_jpeg_shape(encoded)[:2]
        window = augment.central_window(sides) if draws_D is None else augment.random_window(sides, draws_D)
        return _decoded_part(encoded, window, size, channels)

    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, len(JPEG_START)), JPEG_START)
    image_HWC = tf.cond(is_jpeg, part, whole)
    image_HWC.set_shape([size, size, channels])
    return image_HWC


def _decoded_part(encoded: tf.Tensor, window: tuple[tf.Tensor, ...], size: int, channels: int) -> tf.Tensor:
    """A window (top, left, height, width in pixels) of a JPEG, resized.

    The decoder divides both sides by ``ratio``; the largest is taken that leaves at least ``size``. What is left is
    less than a halving of the shorter side, so the filter against aliasing, which costs more than the decoder saves, is
    only needed where the ratios end.
    """
    top, left, height, width = window
    ratios = tf.constant(RATIOS)
    chosen = tf.reduce_sum(tf.cast(tf.minimum(height, width) // ratios[1:] >= size, tf.int32))

    def decoded(ratio: int) -> tf.Tensor:
        scaled = [top // ratio, left // ratio, tf.maximum(height // ratio, 1), tf.maximum(width // ratio, 1)]
        image_HWC = tf.image.decode_and_crop_jpeg(encoded, tf.stack(scaled), channels=channels, ratio=ratio)
        return augment.resized(image_HWC, size, antialias=ratio == RATIOS[-1])

    branches: list[Callable[[], tf.Tensor]] = [partial(decoded, ratio) for ratio in RATIOS]
    return tf.switch_case(chosen, branches)
