from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data.small_sets import CLASSES, SmallSet, numbered, pixels_of, png
from trainer.data.index import Block
from trainer.data.shards import Record, Source, write_dataset
from trainer.data.tfrecord import encode_example, frame
from trainer.errors import DataError
from trainer.storage import crc32c

MakeSet = Callable[..., SmallSet]


def write(folder: Path, train: Source) -> object:
    return write_dataset(
        folder, {"train": train}, name="x", classes=CLASSES, source="here", licence="none", command="pytest"
    )


@pytest.mark.parametrize("length", [0, 1, 127, 128, 70_000])
def test_framing_is_read_by_tensorflow(tmp_path: Path, length: int) -> None:
    records = [bytes(length), b"\x00" * 3, np.random.default_rng(0).bytes(length)]
    (tmp_path / "file").write_bytes(b"".join(frame(record) for record in records))
    read = list(tf.data.TFRecordDataset(str(tmp_path / "file")).as_numpy_iterator())
    assert read == records


def test_examples_are_those_of_tensorflow() -> None:
    numbers = [0, 1, 127, 128, 300, 2**31, 2**62]
    features: dict[str, bytes | int] = {f"n{number}": number for number in numbers}
    features |= {"empty": b"", "long": bytes(range(256)) * 300, "né": b"\x00"}
    example = tf.train.Example.FromString(encode_example(features))
    read: dict[str, bytes | int] = {}
    for key, feature in example.features.feature.items():
        (read[key],) = feature.bytes_list.value or feature.int64_list.value
    assert read == features


def test_shards_hold_the_records_in_order(small_set: MakeSet) -> None:
    made = small_set()
    files = [str(made.folder / shard.file) for shard in made.index.splits["train"].shards]
    assert Path(files[2]).name == "train-00002-of-00009.tfrecord"
    for number, serialized in enumerate(tf.data.TFRecordDataset(files).as_numpy_iterator()):
        feature = tf.train.Example.FromString(serialized).features.feature
        image = tf.io.decode_png(feature["image/encoded"].bytes_list.value[0])
        np.testing.assert_array_equal(image[..., 0], pixels_of(number))
        assert feature["image/class/label"].int64_list.value == [number % 3]
        assert feature["image/format"].bytes_list.value == [b"png"]
        assert feature["image/name"].bytes_list.value == [f"record-{number}".encode()]
        assert feature["image/height"].int64_list.value == feature["image/width"].int64_list.value == [6]
    assert number == 130


def test_the_index_tells_what_is_there(small_set: MakeSet) -> None:
    made = small_set()
    train = made.index.splits["train"]
    assert (train.records, train.class_records) == (131, (44, 44, 43))
    pixels = np.stack([pixels_of(number) for number in range(131)]) / 255
    assert made.index.mean == pytest.approx([pixels.mean()], abs=1e-6)
    assert made.index.deviation == pytest.approx([pixels.std()], abs=1e-6)
    assert made.index.image.uniform
    for shard in train.shards:
        data = (made.folder / shard.file).read_bytes()
        assert (len(data), crc32c(data)) == (shard.bytes, shard.crc32c)
        for number, block in enumerate(shard.blocks):
            part = data[shard.offset(number) : shard.offset(number) + block.bytes]
            assert block == Block(min(4, shard.records - 4 * number), len(part), crc32c(part))


def test_same_records_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, Source(numbered(20), 20, 3))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_mixed_sizes_are_stated(tmp_path: Path) -> None:
    records = [Record(png(np.zeros((4 + n, 9 - n, 3), np.uint8)), 0, str(n)) for n in range(3)]
    image = write(tmp_path / "a", Source(records, 3, 1)).image  # type: ignore[attr-defined]
    assert (image.channels, image.height_min, image.height_max, image.width_min, image.width_max) == (3, 4, 6, 7, 9)
    assert not image.uniform


def test_another_data_set_is_not_overwritten(small_set: MakeSet) -> None:
    made = small_set()
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    with pytest.raises(DataError, match="holds a data set already"):
        write(made.folder, Source(numbered(5), 5, 1))
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == before


GRAY, COLOUR = png(np.zeros((4, 4), np.uint8)), png(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("records", "count", "reason"),
    [
        ([Record(GRAY, 3, "bad")], 1, r"bad: label 3 is not in 0\.\.2"),
        ([Record(GRAY, -1, "bad")], 1, "bad: label -1"),
        ([Record(b"GIF89a", 0, "bad")], 1, "bad: not an image"),
        ([Record(GRAY[:45], 0, "bad")], 1, "bad: not an image"),
        ([Record(png(np.zeros((4, 4, 4), np.uint8)), 0, "bad")], 1, "bad: colour mode RGBA"),
        ([Record(GRAY, 0, "a"), Record(COLOUR, 0, "b")], 2, "gray and colour images are mixed"),
        ([Record(GRAY, 0, "a")], 2, "fewer records came than the 2"),
        ([Record(GRAY, 0, "a"), Record(GRAY, 0, "b")], 1, "more records came than the 1"),
    ],
)
def test_what_cannot_be_written_leaves_no_index(tmp_path: Path, records: list[Record], count: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        write(tmp_path / "a", Source(records, count, 1))
    assert not (tmp_path / "a" / "index.json").exists()
