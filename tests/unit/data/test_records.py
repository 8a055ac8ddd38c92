from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data.small_sets import SmallSet
from trainer.data.index import Shard
from trainer.data.records import Served, in_batches, read_block, salvage_block
from trainer.data.source import Source
from trainer.errors import DataError

MakeSet = Callable[..., SmallSet]


def source_of(made: SmallSet) -> Source:
    return Source(made.folder, made.index.splits["train"])


def first_shard(made: SmallSet) -> Shard:
    return made.index.splits["train"].shards[0]


def record_starts(made: SmallSet) -> list[int]:
    """Offset of each record of the first shard, and the file's end."""
    path = made.folder / first_shard(made).file
    lengths = [len(record) + 16 for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    return [0, *np.cumsum(lengths).tolist()]


def test_blocks_are_the_records_of_the_file(small_set: MakeSet) -> None:
    made = small_set()
    shard = first_shard(made)
    read = [record for number in range(len(shard.blocks)) for record in read_block(source_of(made), 0, number)]
    assert read == list(tf.data.TFRecordDataset(str(made.folder / shard.file)).as_numpy_iterator())


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (0, "wrong checksum of its length"),
        (7, "wrong checksum of its length"),
        (9, "wrong checksum of its length"),
        (12, "wrong checksum of its data"),
        (80, "wrong checksum of its data"),
        (-1, "wrong checksum of its data"),
    ],
)
@pytest.mark.parametrize("record", [0, 5, 13])
def test_a_flipped_bit_is_named(small_set: MakeSet, record: int, offset: int, reason: str) -> None:
    made = small_set()
    shard, starts = first_shard(made), record_starts(made)
    path = made.folder / shard.file
    data = bytearray(path.read_bytes())
    data[(starts[record] if offset >= 0 else starts[record + 1]) + offset] ^= 16
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_block(source_of(made), 0, record // 4)
    assert str(caught.value).startswith(f"{path}: record {record}: {reason};")
    for block in set(range(len(shard.blocks))) - {record // 4}:
        assert len(read_block(source_of(made), 0, block)) == shard.blocks[block].records


@pytest.mark.parametrize("left", [0, 5, 12, 40])
def test_a_truncated_file_is_named(small_set: MakeSet, left: int) -> None:
    made = small_set()
    shard, starts = first_shard(made), record_starts(made)
    path = made.folder / shard.file
    path.write_bytes(path.read_bytes()[: starts[6] + left])
    assert len(read_block(source_of(made), 0, 0)) == 4
    with pytest.raises(DataError, match="record 6: truncated"):
        read_block(source_of(made), 0, 1)
    with pytest.raises(DataError, match="record 8: truncated"):
        read_block(source_of(made), 0, 2)


def test_whole_records_in_another_place_are_refused(small_set: MakeSet) -> None:
    made = small_set()
    shard, starts = first_shard(made), record_starts(made)
    path = made.folder / shard.file
    data = path.read_bytes()
    path.write_bytes(data[starts[1] : starts[2]] + data[: starts[1]] + data[starts[2] :])
    with pytest.raises(DataError, match="not the one that the index describes"):
        read_block(source_of(made), 0, 0)


def test_a_missing_file_is_named(small_set: MakeSet) -> None:
    made = small_set()
    (made.folder / first_shard(made).file).unlink()
    with pytest.raises(DataError, match=r"train-00000-of-00009.tfrecord: cannot be read \(No such file"):
        read_block(source_of(made), 0, 0)


def test_batches_cross_the_borders_of_windows() -> None:
    windows = [([b"0", b"1", b"2"], [0, 1, 2]), ([b"3"], [3]), ([b"4", b"5", b"6", b"7"], [4, 5, 6, 7])]
    stream = (Served(records, np.array(ids), np.ones(len(ids), bool)) for records, ids in windows)
    batches = [(b"".join(records), ids.tolist()) for records, ids, _ in in_batches(stream, 3)]
    assert batches == [(b"012", [0, 1, 2]), (b"345", [3, 4, 5]), (b"67", [6, 7])]


@pytest.mark.parametrize(("offset", "record"), [(0, 5), (9, 4), (12, 6), (80, 7), (-1, 5)])
def test_salvage_loses_only_the_damaged_record(small_set: MakeSet, offset: int, record: int) -> None:
    made = small_set()
    before = read_block(source_of(made), 0, 1)
    starts, path = record_starts(made), made.folder / first_shard(made).file
    data = bytearray(path.read_bytes())
    data[(starts[record] if offset >= 0 else starts[record + 1]) + offset] ^= 16
    path.write_bytes(data)
    after = salvage_block(source_of(made), 0, 1)
    assert isinstance(after[record - 4], str)
    assert [one for n, one in enumerate(after) if n != record - 4] == [
        one for n, one in enumerate(before) if n != record - 4
    ]
