"""One record whose bytes are whole: whether it is what the index promises, decoded as in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.data.index import Index
from trainer.data.tfrecord import Value, decode_example

HEIGHT, WIDTH = "image/height", "image/width"


@dataclass(frozen=True)
class Examiner:
    """``shape`` gives (height, width, channels) of an encoded image, or a string that says why not; ``parse`` whether
    TensorFlow takes all of some records as Examples."""

    index: Index
    parse: Callable[[list[Any]], bool]
    shape: Callable[[bytes], tuple[int, int, int] | str]

    def faults(self, records: list[bytes | str], labels: Counter[int]) -> list[str]:
        """What is wrong with each record, or an empty string; counts labels, from 0, where they can be told.

        A record that is a str is one that could not be read, and why.
        """
        examples = [_decoded(record) for record in records]
        good = [record for record, example in zip(records, examples, strict=True) if isinstance(example, dict)]
        parsed = self.parse(good)
        return [
            self._fault(record, example, labels, parsed) if isinstance(example, dict) else example
            for record, example in zip(records, examples, strict=True)
        ]

    def _fault(self, record: Any, example: dict[str, list[Value]], labels: Counter[int], parsed: bool) -> str:
        layout = self.index.layout
        reason = _not_one(example, layout.label, int) or _not_one(example, layout.image, bytes)
        if reason:
            return reason
        if not parsed and not self.parse([record]):
            return "not a tf.train.Example for TensorFlow"
        label: Any = example[layout.label][0]
        image: Any = example[layout.image][0]
        first, last = layout.first_label, layout.first_label + len(self.index.classes) - 1
        if not first <= label <= last:
            return f"label {label} is not in {first}..{last}"
        labels[label - first] += 1
        shape = self.shape(image)
        return f"not an image ({shape})" if isinstance(shape, str) else self._wrong_size(shape, example)

    def _wrong_size(self, shape: tuple[int, int, int], example: dict[str, list[Value]]) -> str:
        height, width, _ = shape
        for key, found in ((HEIGHT, height), (WIDTH, width)):
            stored = example.get(key)
            if stored and stored[0] != found:
                return f"{height}x{width} pixels, its {key} says {stored[0]!r}"
        sizes = self.index.image
        fits = (
            sizes.height_min <= height <= sizes.height_max,
            sizes.width_min <= width <= sizes.width_max,
        )
        return "" if all(fits) else f"{height}x{width} pixels, the index says {sizes}"


def examiner_of(index: Index) -> Examiner:
    """With TensorFlow, which is imported here."""
    import tensorflow as tf

    layout, channels = index.layout, index.image.channels
    keys = {layout.image: tf.io.FixedLenFeature((), tf.string), layout.label: tf.io.FixedLenFeature((), tf.int64)}

    def parse(serialized: list[Any]) -> bool:
        try:
            tf.io.parse_example(tf.constant(serialized, tf.string), keys)
        except (tf.errors.OpError, UnicodeDecodeError):  # its message quotes the record, whatever that is
            return False
        return True

    def shape(encoded: bytes) -> tuple[int, int, int] | str:
        try:
            height, width, found = tf.io.decode_png(encoded, channels=channels).shape  # takes JPEG as well
        except tf.errors.OpError as error:
            return (str(error.message).splitlines() or ["no reason given"])[0][:80]
        except ValueError as error:  # an animated GIF has four axes
            return str(error)[:80]
        return height, width, found

    return Examiner(index, parse, shape)


def _decoded(record: bytes | str) -> dict[str, list[Value]] | str:
    """The Example, or why there is none."""
    if isinstance(record, str):
        return record
    try:
        return decode_example(record)
    except ValueError as error:
        return f"not a tf.train.Example ({error})"


def _not_one(example: dict[str, list[Value]], key: str, kind: type) -> str:
    values = example.get(key, [])
    if len(values) == 1 and isinstance(values[0], kind):
        return ""
    words = {bytes: "byte string", int: "whole number"}
    return f"{key} is not one {words[kind]}" if values else f"has no {key}"
