"""Writing a data set: shards of TFRecords, then the index.

The same records give the same bytes. Records keep their order, in contiguous parts, so whoever wants shards that each
hold a sample of the whole shuffles them before.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer import storage
from trainer.data.index import FORMAT, INDEX_FILE, Block, ImageSize, Index, Shard, Split, dump_index
from trainer.data.tfrecord import encode_example, frame
from trainer.errors import DataError

BLOCK_RECORDS = 64
CHANNELS = {"L": 1, "RGB": 3}


class Record(NamedTuple):
    """An image as it is stored (PNG or JPEG), its class number from 0, and its name for messages."""

    encoded: bytes
    label: int
    name: str


@dataclass(frozen=True)
class Source:
    """The records of a split, how many they are, and over how many shards they go."""

    records: Iterable[Record]
    count: int
    shards: int


@dataclass(frozen=True)
class Pixels:
    """Sums over the pixels of each channel, in whole numbers: exact, whatever the order of adding."""

    channels: int
    heights: tuple[int, int]
    widths: tuple[int, int]
    count: int
    total: tuple[int, ...]
    squares: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """One shard as written, and what was seen in it."""

    shard: Shard
    class_records: tuple[int, ...]
    pixels: Pixels


def write_dataset(
    folder: storage.Location,
    splits: Mapping[str, Source],
    *,
    name: str,
    classes: tuple[str, ...],
    source: str,
    licence: str,
    command: str,
    block_records: int = BLOCK_RECORDS,
) -> Index:
    """Writes shards ``SPLIT-00000-of-00016.tfrecord`` and then, when all are there, the index.

    Args:
        folder: made where it is missing; must not hold a data set.
        block_records: records of a block, the unit of verified reading.

    Raises:
        DataError: the folder holds an index already; a record is not a gray or RGB image, or its label is out of
            range; another number of records came than was announced; images differ in channels.
        OSError: a file could not be written.
    """
    folder = Path(folder)
    if (folder / INDEX_FILE).exists():
        raise DataError(f"{folder}: holds a data set already; remove it or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        split: list(_write_split(folder, split, part, len(classes), block_records)) for split, part in splits.items()
    }
    everything = merged([shard.pixels for shards in written.values() for shard in shards])
    first = merged([shard.pixels for shard in next(iter(written.values()))])
    mean, deviation = statistics(first)
    index = Index(
        format=FORMAT,
        name=name,
        classes=classes,
        image=ImageSize(
            channels=everything.channels,
            height_min=everything.heights[0],
            height_max=everything.heights[1],
            width_min=everything.widths[0],
            width_max=everything.widths[1],
        ),
        mean=mean,
        deviation=deviation,
        splits={split: split_index(shards) for split, shards in written.items()},
        source=source,
        licence=licence,
        command=command,
    )
    storage.atomic_write(folder / INDEX_FILE, dump_index(index))
    return index


def _write_split(folder: Path, split: str, part: Source, classes: int, block_records: int) -> Iterator[Written]:
    records = iter(part.records)
    for number in range(part.shards):
        count = part.count * (number + 1) // part.shards - part.count * number // part.shards
        taken = list(islice(records, count))
        if len(taken) < count:
            raise DataError(f"split {split}: fewer records came than the {part.count} announced; check the source")
        yield write_shard(folder / f"{split}-{number:05d}-of-{part.shards:05d}.tfrecord", taken, classes, block_records)
    if next(records, None) is not None:
        raise DataError(f"split {split}: more records came than the {part.count} announced; check the source")


def write_shard(path: Path, records: Iterable[Record], classes: int, block_records: int = BLOCK_RECORDS) -> Written:
    """Writes one shard atomically; raises as ``write_dataset`` does."""
    framed: list[bytes] = []
    seen: list[Pixels] = []
    class_records = [0] * classes
    for record in records:
        if not 0 <= record.label < classes:
            raise DataError(f"{record.name}: label {record.label} is not in 0..{classes - 1}; check the source")
        kind, pixels = _look_at(record)
        example: dict[str, bytes | int] = {
            "image/encoded": record.encoded,
            "image/format": kind.encode(),
            "image/class/label": record.label,
            "image/height": pixels.heights[0],
            "image/width": pixels.widths[0],
            "image/name": record.name.encode(),
        }
        framed.append(frame(encode_example(example)))
        seen.append(pixels)
        class_records[record.label] += 1
    if not framed:
        raise DataError(f"{path}: would hold no records; write fewer shards")
    whole, shard = laid_out(path.name, framed, block_records)
    storage.atomic_write(path, whole)
    return Written(shard, tuple(class_records), merged(seen))


def laid_out(file: str, framed: list[bytes], block_records: int = BLOCK_RECORDS) -> tuple[bytes, Shard]:
    """(bytes of a shard, its entry in the index) for framed records."""
    groups = [framed[at : at + block_records] for at in range(0, len(framed), block_records)]
    whole = b"".join(framed)
    blocks: list[Block] = []
    at = 0
    for group in groups:
        data = whole[at : at + sum(map(len, group))]
        blocks.append(Block(len(group), len(data), storage.crc32c(data)))
        at += len(data)
    return whole, Shard(
        file=file, records=len(framed), bytes=len(whole), crc32c=storage.crc32c(whole), blocks=tuple(blocks)
    )


def _look_at(record: Record) -> tuple[str, Pixels]:
    """(format, sums over the pixels) of one image. Raises DataError where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(record.encoded), formats=("PNG", "JPEG"))
            values = np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{record.name}: not an image ({error}); leave it out or mend it") from None
    if image.mode not in CHANNELS:
        raise DataError(f"{record.name}: colour mode {image.mode}, only gray (L) and RGB are stored; convert it")
    flat = values.reshape(-1, CHANNELS[image.mode])
    return str(image.format).lower(), Pixels(
        channels=flat.shape[1],
        heights=(image.height, image.height),
        widths=(image.width, image.width),
        count=len(flat),
        total=tuple(int(value) for value in flat.sum(axis=0)),
        squares=tuple(int(value) for value in (flat**2).sum(axis=0)),
    )


def merged(parts: list[Pixels]) -> Pixels:
    """The sums over all parts. Raises DataError where gray and colour are mixed."""
    if len({part.channels for part in parts}) != 1:
        raise DataError("gray and colour images are mixed; convert them to one of the two")
    return Pixels(
        channels=parts[0].channels,
        heights=(min(part.heights[0] for part in parts), max(part.heights[1] for part in parts)),
        widths=(min(part.widths[0] for part in parts), max(part.widths[1] for part in parts)),
        count=sum(part.count for part in parts),
        total=tuple(sum(values) for values in zip(*(part.total for part in parts), strict=True)),
        squares=tuple(sum(values) for values in zip(*(part.squares for part in parts), strict=True)),
    )


def statistics(pixels: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) of each channel, with pixels as 0..1, to 6 digits."""
    mean = [total / pixels.count / 255 for total in pixels.total]
    variance = [
        (squares * pixels.count - total**2) / pixels.count**2 / 255**2
        for total, squares in zip(pixels.total, pixels.squares, strict=True)
    ]
    return tuple(round(value, 6) for value in mean), tuple(round(math.sqrt(value), 6) for value in variance)


def split_index(written: list[Written]) -> Split:
    """The entry of a split in the index."""
    return Split(
        records=sum(part.shard.records for part in written),
        class_records=tuple(sum(counts) for counts in zip(*(part.class_records for part in written), strict=True)),
        shards=tuple(part.shard for part in written),
    )
