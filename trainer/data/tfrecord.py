"""The bytes of a TFRecord file and of a tf.train.Example, without TensorFlow.

A framed record: uint64 length, masked crc32c of those 8 bytes, data, masked crc32c of the data; little-endian.
Examples are encoded by hand because a serialiser promises no stable bytes, and the same input shall give the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from trainer.storage import crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4
POLYNOMIAL = 0x82F63B78
"""That of crc32c, its bits reflected."""

Value = bytes | int | float
Field = tuple[int, int | memoryview]
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


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


def framed_records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The records of a file that comes in parts, each with its frame, both checksums compared.

    Holds one record and one part at a time.

    Raises:
        ValueError: the next record is damaged or cut short; says how.
    """
    parts = iter(chunks)
    held = bytearray()

    def fill(size: int) -> bool:
        while len(held) < size:
            part = next(parts, None)
            if part is None:
                return False
            held.extend(part)
        return True

    while fill(1):
        if not fill(HEADER_BYTES):
            raise ValueError(f"truncated, {len(held)} bytes are left of its header of {HEADER_BYTES}")
        length, checksum = struct.unpack_from("<QI", held)
        if checksum != masked_crc(bytes(held[:8])):
            raise ValueError("wrong checksum of its length")
        size = HEADER_BYTES + length + FOOTER_BYTES
        if not fill(size):
            raise ValueError(f"truncated, {len(held) - HEADER_BYTES} bytes are left of {length + FOOTER_BYTES}")
        framed = bytes(held[:size])
        del held[:size]
        if struct.unpack_from("<I", framed, HEADER_BYTES + length) != (masked_crc(payload(framed)),):
            raise ValueError("wrong checksum of its data")
        yield framed


def payload(framed: bytes) -> bytes:
    """The data of one record without its frame."""
    return framed[HEADER_BYTES:-FOOTER_BYTES]


def split_records(data: bytes) -> list[bytes]:
    """The data of each record in a run of whole ones.

    Raises:
        ValueError: one is damaged or cut short; says which, from 0, and how.
    """
    records: list[bytes] = []
    try:
        records.extend(payload(framed) for framed in framed_records([data]))
    except ValueError as error:
        raise ValueError(f"record {len(records)}: {error}") from None
    return records


def joined_crc(first: int, second: int, second_bytes: int) -> int:
    """The crc32c of two runs of bytes joined, from that of each and the length of the second."""
    return _product(_power(8 * second_bytes), first) ^ second


@lru_cache(1024)
def _power(exponent: int) -> int:
    """x to a power, modulo the polynomial."""
    square, result = 1 << 30, 1 << 31  # x and 1: the highest bit is the lowest power
    while exponent:
        if exponent & 1:
            result = _product(result, square)
        square = _product(square, square)
        exponent >>= 1
    return result


def _product(left: int, right: int) -> int:
    result = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            result ^= right
        right = right >> 1 ^ POLYNOMIAL * (right & 1)
    return result


def decode_example(data: bytes) -> dict[str, list[Value]]:
    """The values of each key of a serialised tf.train.Example; a key without values has an empty list.

    What protocol buffers allow is taken: numbers packed or one by one, unknown fields, messages in several parts.

    Raises:
        ValueError: not such an Example; says why in a few words.
    """
    features: dict[str, list[Value]] = {}
    for number, part in _fields(memoryview(data)):
        if number != 1 or isinstance(part, int):
            continue
        for inner, entry in _fields(part):
            if inner == 1 and not isinstance(entry, int):
                key, values = _entry(entry)
                features[key] = values
    return features


def _entry(data: memoryview) -> tuple[str, list[Value]]:
    key, feature = "", b""
    for number, part in _fields(data):
        if isinstance(part, int):
            continue
        if number == 1:
            key = str(part, "utf-8")  # a UnicodeDecodeError is a ValueError
        elif number == 2:
            feature += bytes(part)
    values: list[Value] = []
    kind = 0
    for number, part in _fields(memoryview(feature)):
        if number not in (1, 2, 3) or isinstance(part, int):
            continue
        if number != kind:  # of a choice the last counts
            kind, values = number, []
        values += _VALUES[kind](part)
    return key, values


def _bytes_values(data: memoryview) -> Iterator[Value]:
    return (bytes(part) for number, part in _fields(data) if number == 1 and not isinstance(part, int))


def _float_values(data: memoryview) -> Iterator[Value]:
    for number, part in _fields(data, numbers_of=4):
        if number == 1 and not isinstance(part, int):
            if len(part) % 4:
                raise ValueError("floats are cut short")
            yield from struct.unpack(f"<{len(part) // 4}f", part)


def _int_values(data: memoryview) -> Iterator[Value]:
    for number, part in _fields(data):
        if number != 1:
            continue
        if isinstance(part, int):
            yield _signed(part)
            continue
        at = 0
        while at < len(part):
            value, at = _read_varint(part, at)
            yield _signed(value)


_VALUES = {1: _bytes_values, 2: _float_values, 3: _int_values}


def _fields(data: memoryview, numbers_of: int = 0) -> Iterator[Field]:
    """(number, value) of each field; fixed-size values are left out unless they have ``numbers_of`` bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number}")
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == LENGTH:
            size, at = _read_varint(data, at)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"field {number} is of wire type {kind}")
        if at + size > len(data):
            raise ValueError(f"field {number} is cut short")
        if kind == LENGTH or size == numbers_of:
            yield number, data[at : at + size]
        at += size


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
