"""Small data sets: gray 6x6 images whose pixels tell the record, three classes, blocks of 4 records."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config import RunConfig, with_overrides
from trainer.data.index import Index
from trainer.data.shards import Record, Source, write_dataset

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


@pytest.fixture
def small_set(tmp_path: Path) -> Callable[..., SmallSet]:
    """Writes a set of 131 train records (from number 0) and 23 test records (from 1000), with a config that fits."""

    def make(records: list[Record] | None = None, overrides: dict[str, object] | None = None) -> SmallSet:
        train = list(numbered(131)) if records is None else records
        folder = tmp_path / "set"
        index = write_dataset(
            folder,
            {"train": Source(train, len(train), 9), "test": Source(numbered(23, 1000), 23, 2)},
            name="small",
            classes=CLASSES,
            source="made here",
            licence="none",
            command="pytest",
            block_records=4,
        )
        config = with_overrides(
            RunConfig(),
            {
                "model.image_size": SIZE,
                "model.classes": len(CLASSES),
                "data.uri": str(folder),
                "data.lanes": 4,
                "data.shuffle_window": 10,
                "data.interleave_shards": 2,
                "train.global_batch_size": 8,
                "evaluate.batch_size": 5,
                **(overrides or {}),
            },
        )
        return SmallSet(folder, index, config)

    return make
