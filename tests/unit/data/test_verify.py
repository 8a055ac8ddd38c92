from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit.data import foreign_sets
from tests.unit.data.small_sets import SmallSet, numbered, png, with_record_changed
from trainer.data.foreign import write_index
from trainer.data.shards import Record
from trainer.data.verify import run
from trainer.errors import DataError

MakeSet = Callable[..., SmallSet]
SHARD = "train-00004-of-00009.tfrecord"  # holds 14 records, from number 58 on, in blocks of 4


def verified(folder: Path, workers: int = 2) -> list[str]:
    """The lines that were printed, the number of faults checked, without the folder."""
    lines: list[str] = []
    count = run(str(folder), workers, lines.append)
    faults = [line for line in lines[:-1] if "no fault" not in line]
    assert count == len(faults)
    ending = "verified, no fault" if count == 0 else f"{count} fault{'s' * (count > 1)}"
    assert lines[-1].endswith(ending)
    assert not any("\n" in line for line in lines)
    return [line.removeprefix(f"{folder}/") for line in lines]


def starts(path: Path) -> list[int]:
    """Where each record begins, and where the file ends."""
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return list(accumulate((len(record) + 16 for record in records), initial=0))


def changed(path: Path, change: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 8

    return change


def index_changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tree = json.loads((folder / "index.json").read_text())
    change(tree)
    (folder / "index.json").write_text(json.dumps(tree))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_whole_set_has_no_fault(small_set: MakeSet, workers: int) -> None:
    assert verified(small_set().folder, workers) == ["154 records in 11 shards verified, no fault"]


def test_the_embedded_set_has_no_fault() -> None:
    lines: list[str] = []
    assert run("embedded", 2, lines.append) == 0
    assert lines[-1] == "12,000 records in 20 shards verified, no fault"


@pytest.mark.parametrize("record", [0, 6, 13])
@pytest.mark.parametrize(
    ("offset", "reason"), [(0, "its length"), (9, "its length"), (12, "its data"), (90, "its data")]
)
def test_a_flipped_bit_is_found(small_set: MakeSet, record: int, offset: int, reason: str) -> None:
    folder = small_set().folder
    changed(folder / SHARD, flip(starts(folder / SHARD)[record] + offset))
    assert verified(folder) == [
        f"{SHARD}: record {record}: wrong checksum of {reason}",
        "153 records in 11 shards read, 1 fault",
    ]


def test_a_truncated_shard_is_found(small_set: MakeSet) -> None:
    folder = small_set().folder
    begin, end = starts(folder / SHARD)[6], starts(folder / SHARD)[-1]
    changed(folder / SHARD, lambda data: data.__delitem__(slice(begin + 30, None)))
    size, *records, _ = verified(folder)
    assert size == f"{SHARD}: has {begin + 30} bytes, the index says {end}"
    assert [line.partition(",")[0] for line in records] == [
        f"{SHARD}: records 6 to 7: truncated",
        f"{SHARD}: records 8 to 13: truncated",
    ]


def test_extra_bytes_are_found(small_set: MakeSet) -> None:
    folder = small_set().folder
    size = (folder / SHARD).stat().st_size
    changed(folder / SHARD, lambda data: data.extend(bytes(5)))
    assert verified(folder) == [
        f"{SHARD}: has {size + 5} bytes, the index says {size}",
        "154 records in 11 shards read, 1 fault",
    ]


def test_all_faults_are_listed_and_extra_files_mentioned(small_set: MakeSet) -> None:
    folder = small_set().folder
    (folder / "train-00001-of-00009.tfrecord").unlink()
    places = starts(folder / SHARD)
    for record in (1, 2, 9):
        changed(folder / SHARD, flip(places[record] + 20))
    (folder / "test-00000-of-00002.tfrecord").unlink()
    (folder / "notes.txt").write_text("mine")
    assert verified(folder) == [
        "train-00001-of-00009.tfrecord: missing, the index lists it",
        f"{SHARD}: records 1 to 2: wrong checksum of its data",
        f"{SHARD}: record 9: wrong checksum of its data",
        "test-00000-of-00002.tfrecord: missing, the index lists it",
        "not named by the index, no fault: notes.txt",
        "125 records in 11 shards read, 4 faults",
    ]


ID = b"image/class/label\x12\x05\x1a\x03\n\x01"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\x89PNG", b"\x89JPG", "not an image ("),
        (b"IDAT", b"ABCD", "not an image ("),
        (b"image/encoded", b"image/Encoded", "has no image/encoded"),
        (ID + b"\x00", ID + b"\x03", "label 3 is not in 0..2"),
        (b"image/class/label\x12\x05\x1a", b"image/class/label\x12\x05\x0a", "image/class/label is not one whole"),
        (
            b"image/height\x12\x05\x1a\x03\n\x01\x06",
            b"image/height\x12\x05\x1a\x03\n\x01\x07",
            "its image/height says 7",
        ),
        (b"\n\x15\n", b"\n\x7f\n", "not a tf.train.Example ("),
    ],
)
def test_a_record_that_is_whole_but_wrong_is_found(small_set: MakeSet, old: bytes, new: bytes, reason: str) -> None:
    def change(serialized: bytes) -> bytes:
        assert old in serialized or reason.startswith("not a tf")
        return serialized.replace(old, new) if old in serialized else b"\xff" + serialized

    made = with_record_changed(small_set(), 4, 2, change)
    (line, last) = verified(made.folder)
    assert line.startswith(f"{SHARD}: record 2: ")
    assert reason in line
    assert last == "154 records in 11 shards read, 1 fault"


def test_what_only_pillow_takes_is_found(small_set: MakeSet) -> None:
    """A PNG with a wrong checksum of its pixels."""

    def damaged(data: bytes) -> bytes:
        at = data.index(b"IEND") - 6
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    pixels = np.zeros((6, 6), np.uint8)
    np.testing.assert_array_equal(Image.open(io.BytesIO(damaged(png(pixels)))), pixels)
    made = with_record_changed(small_set(), 4, 2, damaged)
    (line, _) = verified(made.folder)
    assert line.startswith(f"{SHARD}: record 2: not an image (")


def test_an_image_of_another_size_is_found(small_set: MakeSet) -> None:
    records = list(numbered(131))
    records[60] = Record(png(np.zeros((6, 5), np.uint8)), 0, "odd")
    made = small_set(records)
    index_changed(made.folder, lambda tree: tree["image"].update(width_min=6))
    assert verified(made.folder)[0] == f"{SHARD}: record 2: 6x5 pixels, the index says 6x6"


def test_a_wrong_class_count_is_found(small_set: MakeSet) -> None:
    made = small_set()
    counts = list(made.index.splits["train"].class_records)
    stated = [counts[0] + 2, counts[1] - 2, counts[2]]
    index_changed(made.folder, lambda tree: tree["splits"]["train"].update(class_records=stated))
    assert verified(made.folder)[:2] == [
        f"index.json: split train: class ant has {counts[0]} records, the index says {stated[0]}",
        f"index.json: split train: class bee has {counts[1]} records, the index says {stated[1]}",
    ]


def test_a_label_that_is_another_class_is_found_by_the_counts(small_set: MakeSet) -> None:
    made = with_record_changed(small_set(), 4, 2, lambda data: data.replace(ID + b"\x00", ID + b"\x01"))
    lines = verified(made.folder)
    assert [line.partition(" has ")[0] for line in lines[:2]] == [
        "index.json: split train: class ant",
        "index.json: split train: class bee",
    ]


def test_wrong_checksums_in_the_index_are_found(small_set: MakeSet) -> None:
    made = small_set()
    index_changed(made.folder, lambda tree: tree["splits"]["train"]["shards"][4].update(crc32c=1))
    (line, _) = verified(made.folder)
    assert line.startswith(f"{SHARD}: its crc32c is ")
    index_changed(made.folder, lambda tree: tree["splits"]["train"]["shards"][5]["blocks"][1].__setitem__(2, 1))
    lines = verified(made.folder)
    assert lines[1] == (
        "train-00005-of-00009.tfrecord: records 4 to 7: its block is whole but is not the one that the index describes"
    )


@pytest.mark.parametrize("layout", ["tfds", "inception"])
def test_sets_of_others_are_verified(tmp_path: Path, layout: str) -> None:
    folder = getattr(foreign_sets, layout)(tmp_path / "set")
    write_index(str(folder), str(tmp_path / "index"), name=None, licence="", command="x", class_names=None, report=None)
    assert verified(tmp_path / "index")[-1] == "240 records in 7 shards verified, no fault"
    path = sorted(folder.rglob("*train*-00002-of-00005"))[0]
    changed(path, flip(starts(path)[7] + 12))
    lines: list[str] = []
    assert run(str(tmp_path / "index"), 2, lines.append) == 1
    assert lines[0] == f"{path}: record 7: wrong checksum of its data"


def test_without_an_index_there_is_nothing_to_verify(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataError, match=r"index.json: missing"):
        run(str(tmp_path), 1, print)
