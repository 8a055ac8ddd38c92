from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.tfrecord import (
    decode_example,
    encode_example,
    frame,
    framed_records,
    joined_crc,
    payload,
    split_records,
)
from trainer.storage import crc32c

Feature = tf.train.Feature
RECORDS = [b"", b"\x00" * 3, np.random.default_rng(0).bytes(1000), b"last"]


def example(**features: tf.train.Feature) -> tf.train.Example:
    return tf.train.Example(features=tf.train.Features(feature=features))


def of_bytes(*values: bytes) -> tf.train.Feature:
    return Feature(bytes_list=tf.train.BytesList(value=values))


def of_ints(*values: int) -> tf.train.Feature:
    return Feature(int64_list=tf.train.Int64List(value=values))


def of_floats(*values: float) -> tf.train.Feature:
    return Feature(float_list=tf.train.FloatList(value=values))


def as_read_by_tensorflow(serialized: bytes) -> dict[str, list[bytes | int | float]]:
    found = tf.train.Example.FromString(serialized).features.feature
    return {
        key: [*feature.bytes_list.value, *feature.int64_list.value, *feature.float_list.value]
        for key, feature in found.items()
    }


@pytest.mark.parametrize(
    "made",
    [
        example(),
        example(none=Feature(), empty=of_bytes(), also=of_ints()),
        example(image=of_bytes(bytes(range(256)) * 300), label=of_ints(7), né=of_bytes(b"", b"\x00", b"b")),
        example(ints=of_ints(0, 1, 127, 128, 2**31, 2**63 - 1, -1, -128, -(2**63))),
        example(floats=of_floats(0.0, -1.5, 3.4e38, float("inf"), 1e-45), one=of_floats(0.1)),
    ],
)
def test_examples_of_tensorflow_are_read(made: tf.train.Example) -> None:
    serialized = made.SerializeToString()
    assert decode_example(serialized) == as_read_by_tensorflow(serialized)


def test_what_is_written_here_is_read_here() -> None:
    features: dict[str, bytes | int] = {"a": b"x" * 300, "b": 0, "c": 2**40}
    assert decode_example(encode_example(features)) == {key: [value] for key, value in features.items()}


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def of_feature(*features: bytes) -> bytes:
    return field(1, field(1, field(1, b"k") + b"".join(field(2, feature) for feature in features)))


UNPACKED_INTS = field(3, b"\x08\x05\x08" + b"\xff" * 9 + b"\x01")
UNPACKED_FLOATS = field(2, b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2))


@pytest.mark.parametrize(
    ("serialized", "values"),
    [
        (of_feature(UNPACKED_INTS), [5, -1]),
        (of_feature(UNPACKED_FLOATS), [1.5, -2.0]),
        (of_feature(field(1, field(1, b"old")), UNPACKED_INTS), [5, -1]),
        (of_feature(UNPACKED_INTS, UNPACKED_INTS), [5, -1, 5, -1]),
        (of_feature(field(3, b"")) + of_feature(UNPACKED_FLOATS), [1.5, -2.0]),
        (b"\x10\x07" + of_feature(field(1, field(1, b"x") + b"\x11" + bytes(8) + b"\x1d" + bytes(4))), [b"x"]),
    ],
)
def test_rare_forms_are_read_as_protocol_buffers_say(serialized: bytes, values: list[object]) -> None:
    assert decode_example(serialized) == as_read_by_tensorflow(serialized) == {"k": values}


@pytest.mark.parametrize(
    ("serialized", "reason"),
    [
        (b"\x0a", "a number is cut short"),
        (b"\x0a\x05abc", "field 1 is cut short"),
        (b"\x0a" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x02\x00", "field number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"not an example", "wire type 6"),
        (of_feature(field(2, field(1, b"abc"))), "floats are cut short"),
        (of_feature(field(3, field(1, b"\x80"))), "a number is cut short"),
        (field(1, field(1, field(1, b"\xff") + field(2, b""))), "utf-8"),
    ],
)
def test_what_is_not_an_example_is_refused(serialized: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_example(serialized)


def test_every_cut_of_an_example_is_an_error_or_what_tensorflow_reads() -> None:
    whole = example(image=of_bytes(b"abc"), label=of_ints(1, -1), x=of_floats(1.0)).SerializeToString()
    for size in range(len(whole)):
        try:
            found = decode_example(whole[:size])
        except ValueError:
            with pytest.raises(Exception, match="pars"):
                tf.train.Example.FromString(whole[:size])
        else:
            assert found == as_read_by_tensorflow(whole[:size])


def test_files_of_tensorflow_are_split(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    data = path.read_bytes()
    assert split_records(data) == RECORDS
    for size in (1, 7, 16, 1000, 5000):
        framed = list(framed_records(data[at : at + size] for at in range(0, len(data), size)))
        assert b"".join(framed) == data
        assert [payload(one) for one in framed] == RECORDS
    assert split_records(b"") == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (16, "record 1: wrong checksum of its length"),
        (16 + 9, "record 1: wrong checksum of its length"),
        (16 + 12, "record 1: wrong checksum of its data"),
        (16 + 16, "record 1: wrong checksum of its data"),
        (16 + 19 + 500, "record 2: wrong checksum of its data"),
    ],
)
def test_a_flipped_bit_is_found(place: int, reason: str) -> None:
    data = bytearray(b"".join(frame(record) for record in RECORDS))
    data[place] ^= 4
    with pytest.raises(ValueError, match=reason):
        split_records(bytes(data))


@pytest.mark.parametrize(
    ("size", "reason"), [(20, "4 bytes are left of its header"), (30, "record 1: truncated, 2 bytes are left of 7")]
)
def test_a_cut_is_found(size: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        split_records(b"".join(frame(record) for record in RECORDS)[:size])


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (9, 100_000), (70_000, 3)])
def test_checksums_are_joined(sizes: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(size).bytes(size) for size in sizes)
    assert joined_crc(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)
