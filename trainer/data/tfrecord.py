"""The bytes of a TFRecord file and of a tf.train.Example, without TensorFlow.

A framed record: uint64 length, masked crc32c of those 8 bytes, data, masked crc32c of the data; little-endian.
Examples are encoded by hand because a serialiser promises no stable bytes, and the same input shall give the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from trainer.storage import crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord stores: a crc over data that holds its own crc would be weak, hence the mask."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as it stands in the file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))))


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """A serialised tf.train.Example of one value for each key; integers are not negative."""
    entries = []
    for key in sorted(features):
        value = features[key]
        # Feature.bytes_list = 1, Feature.int64_list = 3, each with its values as field 1, integers packed
        feature = _field(1, _field(1, value)) if isinstance(value, bytes) else _field(3, _field(1, _varint(value)))
        entries.append(_field(1, _field(1, key.encode()) + _field(2, feature)))  # an entry of Features.feature
    return _field(1, b"".join(entries))  # Example.features


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
