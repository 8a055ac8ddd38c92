"""Small data sets: gray 6x6 images whose pixels tell the record, three classes, blocks of 4 records."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.config import RunConfig
from trainer.data.index import Block, Index, dump_index, load_index
from trainer.data.records import read_block
from trainer.data.shards import Record
from trainer.data.source import Source
from trainer.data.tfrecord import frame
from trainer.storage import crc32c

CLASSES = ("ant", "bee", "cat")
SIZE = 6


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def pixels_of(number: int) -> np.ndarray:
    """[6, 6] uint8, different for each record."""
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def numbered(count: int, first: int = 0) -> Iterator[Record]:
    for number in range(first, first + count):
        yield Record(png(pixels_of(number)), number % len(CLASSES), f"record-{number}")


@dataclass(frozen=True)
class SmallSet:
    folder: Path
    index: Index
    config: RunConfig


def with_record_changed(made: SmallSet, shard: int, record: int, change: Callable[[bytes], bytes]) -> SmallSet:
    """The same set with one serialised Example of its train split changed, and an index that agrees."""
    split = made.index.splits["train"]
    old = split.shards[shard]
    groups = [read_block(Source(made.folder, split), shard, number) for number in range(len(old.blocks))]
    groups[record // 4][record % 4] = change(groups[record // 4][record % 4])
    joined = [b"".join(frame(serialized) for serialized in group) for group in groups]
    whole = b"".join(joined)
    (made.folder / old.file).write_bytes(whole)
    blocks = tuple(Block(len(group), len(data), crc32c(data)) for group, data in zip(groups, joined, strict=True))
    new = old.model_copy(update={"bytes": len(whole), "crc32c": crc32c(whole), "blocks": blocks})
    shards = (*split.shards[:shard], new, *split.shards[shard + 1 :])
    splits = {**made.index.splits, "train": split.model_copy(update={"shards": shards})}
    (made.folder / "index.json").write_bytes(dump_index(made.index.model_copy(update={"splits": splits})))
    return replace(made, index=load_index(str(made.folder)))
