"""A tolerated record is done without, and nothing else changes, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.data.small_sets import SmallSet, with_record_changed
from trainer.config import with_overrides
from trainer.data.order import record_id
from trainer.data.pipeline import test_batches as batches_of_tests
from trainer.data.pipeline import train_batches

MakeSet = Callable[..., SmallSet]
SHARD, RECORD = 4, 2
BAD_ID = record_id(SHARD, RECORD)
LABEL = b"image/class/label\x12\x05\x1a\x03\n\x01"


def flipped(made: SmallSet) -> SmallSet:
    path = made.folder / made.index.splits["train"].shards[SHARD].file
    data = bytearray(path.read_bytes())
    length = len(data) // made.index.splits["train"].shards[SHARD].records
    data[length * RECORD + length // 2] ^= 8
    path.write_bytes(data)
    return made


def not_an_image(made: SmallSet) -> SmallSet:
    return with_record_changed(made, SHARD, RECORD, lambda serialized: serialized.replace(b"PNG", b"GNP"))


def label_out_of_range(made: SmallSet) -> SmallSet:
    at = slice(len(LABEL), len(LABEL) + 1)

    def change(serialized: bytes) -> bytes:
        start = serialized.index(LABEL)
        return serialized[: start + at.start] + b"\x07" + serialized[start + at.stop :]

    return with_record_changed(made, SHARD, RECORD, change)


DAMAGES = [flipped, not_an_image, label_out_of_range]


def batches_of(made: SmallSet, rank: int = 0, size: int = 1, **changes: object) -> list[dict[str, np.ndarray]]:
    config = with_overrides(made.config, {"data.tolerate_damaged": 5, **changes})
    with train_batches(config, made.index, rank, size, 0, 20) as batches:
        return [{key: np.asarray(value) for key, value in batch.items()} for batch in batches]


@pytest.mark.parametrize("damage", DAMAGES)
def test_just_the_damaged_record_is_done_without(small_set: MakeSet, damage: Callable[[SmallSet], SmallSet]) -> None:
    made = small_set()
    good = batches_of(made)
    bad = batches_of(damage(made))
    seen = 0
    for one, other in zip(good, bad, strict=True):
        np.testing.assert_array_equal(one["id"], other["id"])
        kept = other["whole"]
        np.testing.assert_array_equal(kept, other["id"] != BAD_ID)
        for key in ("image", "label"):
            np.testing.assert_array_equal(one[key][kept], other[key][kept])
        seen += int((~kept).sum())
    assert seen >= 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_the_same_on_two_ranks(small_set: MakeSet, damage: Callable[[SmallSet], SmallSet]) -> None:
    made = damage(small_set())
    alone, first, second = batches_of(made), batches_of(made, 0, 2), batches_of(made, 1, 2)
    for whole, one, other in zip(alone, first, second, strict=True):
        for key, value in whole.items():
            np.testing.assert_array_equal(value, np.concatenate((one[key], other[key])))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_test_does_without_as_well(small_set: MakeSet, damage: Callable[[SmallSet], SmallSet]) -> None:
    made = damage(small_set())
    config = with_overrides(made.config, {"data.tolerate_damaged": 5, "data.test_split": "train"})
    weights: dict[int, float] = {}
    for batch in batches_of_tests(config, made.index, 0, 1):
        for identity, weight in zip(
            np.asarray(batch["id"]).tolist(), np.asarray(batch["weight"]).tolist(), strict=True
        ):
            weights[identity] = max(weight, weights.get(identity, 0))
    assert [identity for identity, weight in weights.items() if not weight] == [BAD_ID]
