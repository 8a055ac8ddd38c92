"""What is wrong with records whose bytes are whole: looked for one by one, after a batch has failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.decoding import Reading, fitted
from trainer.data.order import record_place


def of_batch(batch: tuple[NDArray[np.object_], Any, NDArray[np.float64], Any], reading: Reading) -> dict[int, str]:
    """A line for a person on each record of a raw batch that cannot be used, by record id."""
    found: dict[int, str] = {}
    serialized_B, ids_B, draws_BD, whole_B = batch
    for serialized, identity, draws_D, whole in zip(serialized_B, ids_B.tolist(), draws_BD, whole_B, strict=True):
        fault = _of_record(serialized, draws_D, reading) if whole else ""
        if fault:
            shard, record = record_place(identity)
            path = reading.source.path(shard)
            found[identity] = f"{path}: record {record}: {fault}; leave it out and prepare the data set again"
    return found


def of_size(height: int, width: int, size: int, resize: str) -> str:
    """What is wrong with an image's size, or an empty string."""
    if resize == "none" and not height == width == size:
        return f"{height}x{width} pixels, the model takes {size}x{size}"
    if resize == "crop" and min(height, width) < size:
        return f"{height}x{width} pixels, too small for crops of {size}x{size}"
    return ""


def _of_record(serialized: bytes, draws_D: NDArray[np.float64], reading: Reading) -> str:
    """What is wrong with a record whose bytes are whole, or an empty string."""
    config, layout = reading.config, reading.index.layout
    keys = {layout.image: tf.io.VarLenFeature(tf.string), layout.label: tf.io.VarLenFeature(tf.int64)}
    try:
        features = tf.io.parse_single_example(serialized, keys)
    except (tf.errors.OpError, UnicodeDecodeError):  # whose message quotes the record
        return f"not a tf.train.Example with {layout.image} and {layout.label}"
    images, labels = features[layout.image].values.numpy(), features[layout.label].values.numpy()
    if len(images) != 1 or len(labels) != 1:
        return f"holds {len(images)} values of {layout.image} and {len(labels)} of {layout.label}, not one of each"
    first, last = layout.first_label, layout.first_label + len(reading.index.classes) - 1
    if not first <= labels[0] <= last:
        return f"label {labels[0]} is not in {first}..{last}"
    try:
        height, width, _ = tf.io.decode_png(images[0], channels=config.model.channels).shape
    except tf.errors.OpError as error:
        return f"not an image ({str(error.message).splitlines()[0][:80]})"
    wrong = of_size(height, width, config.source_size, config.data.augment.resize)
    if wrong:
        return wrong
    try:
        fitted(tf.constant(images[0]), tf.constant(draws_D), reading)
    except tf.errors.OpError as error:
        return str(error.message).splitlines()[0]
    return ""
