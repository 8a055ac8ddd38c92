from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.data.small_sets import CLASSES, SIZE, SmallSet, numbered
from trainer.config import RunConfig, with_overrides
from trainer.data.shards import Record, Source, write_dataset


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
