"""One shard that others wrote, read from its first byte to its last: what the index says of it.

Runs in worker processes, so everything here can be pickled. Knows nothing of TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from trainer import storage
from trainer.data.index import Block, Layout, Shard
from trainer.data.shards import BLOCK_RECORDS
from trainer.data.tfrecord import Value, decode_example, framed_records, joined_crc, payload
from trainer.errors import DataError

SMALL_PIXELS = 128
SAMPLE_EVERY = 16
REREADS = 2
MOST_CLASSES = 1_000_000
GZIP_START = b"\x1f\x8b"
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B")
SYNSET, TEXT = "image/class/synset", "image/class/text"

Image.preinit()


@dataclass(frozen=True)
class Job:
    """What is to be read, and what is known of its labels: ``classes`` is 0 where their number is not known."""

    folder: storage.Location
    file: str
    entry: storage.Entry
    layout: Layout
    classes: int
    sampled: bool


@dataclass
class Sums:
    """Pixels as whole numbers: how many, and for each channel their sum and that of their squares."""

    count: int = 0
    total: tuple[int, ...] = ()
    squares: tuple[int, ...] = ()

    def add(self, other: Sums) -> None:
        if other.count:
            self.count += other.count
            self.total = _added(self.total, other.total)
            self.squares = _added(self.squares, other.squares)


@dataclass
class Scanned:
    """A shard, and what was seen in it. Labels are class numbers from 0; pixels are summed apart by channels."""

    shard: Shard | None = None
    labels: Counter[int] = field(default_factory=Counter)
    synsets: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    heights: tuple[int, int] = (2**31, 0)
    widths: tuple[int, int] = (2**31, 0)
    gray: int = 0
    sampled: int = 0
    gray_sums: Sums = field(default_factory=Sums)
    colour_sums: Sums = field(default_factory=Sums)


def scan(job: Job) -> Scanned:
    """Reads a whole shard, one record in memory at a time; what came damaged from a bucket is read again.

    Raises:
        DataError: a record is damaged, not such an Example, not an image or of a label out of range; names file,
            record (from 0) and reason.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    for _ in range(REREADS if storage.is_cloud(job.folder) else 0):
        with contextlib.suppress(DataError):
            return _scan(job)
    return _scan(job)


def _scan(job: Job) -> Scanned:
    path = storage.join(job.folder, job.file)
    found = Scanned()
    blocks: list[Block] = []
    group: list[bytes] = []
    checksum = size = number = 0

    def end_block() -> None:
        nonlocal checksum, size
        joined = b"".join(group)
        blocks.append(Block(len(group), len(joined), storage.crc32c(joined)))
        checksum = joined_crc(checksum, blocks[-1].crc32c, len(joined))
        size += len(joined)
        group.clear()

    try:
        for framed in framed_records(storage.chunks(path, job.entry)):
            _look_at(payload(framed), job, number, found)
            group.append(framed)
            number += 1
            if len(group) == BLOCK_RECORDS:
                end_block()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        if number == 0 and is_gzip(path):
            raise DataError(f"{path}: is compressed with GZIP, blocks of it cannot be read; decompress it") from None
        raise DataError(f"{path}: record {number}: {error}; copy the data set again or mend that record") from None
    if group:
        end_block()
    if not blocks:
        raise DataError(f"{path}: holds no records; remove it or copy the data set again")
    if size != job.entry.bytes or job.entry.crc32c not in (None, checksum):
        raise DataError(f"{path}: what was read is not the object that was listed; run the command again")
    found.shard = Shard(file=job.file, records=number, bytes=size, crc32c=checksum, blocks=tuple(blocks))
    return found


def is_gzip(path: storage.Location) -> bool:
    return storage.read_range(path, 0, len(GZIP_START)) == GZIP_START


def _look_at(serialized: bytes, job: Job, number: int, found: Scanned) -> None:
    """Adds one record. Raises ValueError."""
    try:
        example = decode_example(serialized)
    except ValueError as error:
        raise ValueError(f"not a tf.train.Example ({error})") from None
    label = _label(example, job)
    found.labels[label] += 1
    synset, text = _text(example, SYNSET), _text(example, TEXT)
    if synset and found.synsets.setdefault(label, synset) != synset:
        raise ValueError(f"{SYNSET} is {synset}, earlier records of that label say {found.synsets[label]}")
    if text:
        found.texts.setdefault(label, text)
    (encoded,) = _one(example, job.layout.image, bytes)
    image = _opened(encoded)
    width, height = image.size
    found.heights = (min(found.heights[0], height), max(found.heights[1], height))
    found.widths = (min(found.widths[0], width), max(found.widths[1], width))
    gray = image.mode in GRAY_MODES
    found.gray += gray
    if job.sampled and (max(width, height) <= SMALL_PIXELS or number % SAMPLE_EVERY == 0):
        found.sampled += 1
        (found.gray_sums if gray else found.colour_sums).add(_sums(image, gray))


def _label(example: dict[str, list[Value]], job: Job) -> int:
    (stored,) = _one(example, job.layout.label, int)
    first, classes = job.layout.first_label, job.classes or MOST_CLASSES
    if stored < first:
        raise ValueError(f"label {stored}, the labels of this layout begin at {first}")
    if stored >= first + classes:
        raise ValueError(f"label {stored} is not in {first}..{first + classes - 1}")
    return int(stored) - first


def _one(example: dict[str, list[Value]], key: str, kind: type) -> list:
    values = example.get(key, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        words = {bytes: "byte string", int: "whole number"}
        raise ValueError(f"{key} is not one {words[kind]}")
    return values


def _text(example: dict[str, list[Value]], key: str) -> str:
    values = example.get(key, [])
    return values[0].decode("utf-8", "replace").strip() if values and isinstance(values[0], bytes) else ""


def _opened(encoded: bytes) -> Image.Image:
    """An image whose header has been read, and no more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
    except Exception as error:  # decoders raise whatever they like at damaged bytes
        raise ValueError(f"not a PNG or JPEG image ({_short(error)})") from None


def _sums(image: Image.Image, gray: bool) -> Sums:
    try:
        if image.mode.startswith("I"):
            values = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8)[..., None]
        else:
            values = np.asarray(image.convert("L" if gray else "RGB")).astype(np.int64)
    except Exception as error:
        raise ValueError(f"cannot be decoded ({_short(error)})") from None
    flat = values.reshape(-1, 1 if gray else 3)
    squares = (flat * flat).sum(axis=0)
    return Sums(len(flat), tuple(int(one) for one in flat.sum(axis=0)), tuple(int(one) for one in squares))


def _short(error: Exception) -> str:
    return " ".join(f"{error or type(error).__name__}".split())[:80]


def _added(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one + other for one, other in zip(left, right, strict=True)) if left else right
