from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data import foreign_sets
from tests.unit.data.foreign_sets import SYNSETS, inception_record, jpeg, tfds_record, write
from tests.unit.data.small_sets import CLASSES, pixels_of, png
from trainer.config import RunConfig, with_overrides
from trainer.data import scan_notes
from trainer.data.foreign import write_index
from trainer.data.index import Index, load_index
from trainer.data.order import record_place
from trainer.data.pipeline import test_batches, train_batches
from trainer.data.scan import Job, Scanned, scan
from trainer.errors import DataError
from trainer.storage import crc32c

test_batches.__test__ = False  # type: ignore[attr-defined]  # it only sounds like a test


def indexed(source: Path, destination: Path | None = None, **more: Any) -> Index:
    given = {"name": None, "licence": "", "command": "pytest", "class_names": None, "report": None, **more}
    return write_index(str(source), str(destination or source), **given)


def config_of(uri: Path, index: Index, test_split: str) -> RunConfig:
    overrides = {
        "model.image_size": 6,
        "model.channels": index.image.channels,
        "model.classes": 3,
        "data.uri": str(uri),
        "data.test_split": test_split,
        "data.lanes": 4,
        "train.global_batch_size": 8,
        "evaluate.batch_size": 8,
    }
    return with_overrides(RunConfig(), overrides)


def test_tfds_is_read_as_it_is(tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    index = indexed(folder)
    assert load_index(str(folder)) == index
    assert (index.name, index.licence, index.classes, index.location) == ("tiny_set", "free", CLASSES, "")
    assert (index.layout.image, index.layout.label, index.layout.first_label) == ("image", "label", 0)
    assert list(index.splits) == ["train", "test"]
    assert index.splits["train"].class_records == (67, 67, 66)
    assert (index.image.channels, str(index.image), index.statistics_records) == (1, "6x6", 0)
    pixels = np.stack([pixels_of(number) for number in range(200)]) / 255
    np.testing.assert_allclose([index.mean[0], index.deviation[0]], [pixels.mean(), pixels.std()], atol=1e-6)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_blocks_are_those_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "x-train.tfrecord-00000-of-00001", [tfds_record(number) for number in range(150)])
    (shard,) = indexed(tmp_path).splits["train"].shards
    data = (tmp_path / shard.file).read_bytes()
    assert [block.records for block in shard.blocks] == [64, 64, 22]
    assert (shard.bytes, shard.crc32c) == (len(data), crc32c(data))
    for number, block in enumerate(shard.blocks):
        at = shard.offset(number)
        assert block.crc32c == crc32c(data[at : at + block.bytes])


@pytest.mark.parametrize("layout", ["tfds", "inception"])
def test_a_foreign_set_trains(tmp_path: Path, layout: str) -> None:
    folder = getattr(foreign_sets, layout)(tmp_path / "set")
    index = indexed(folder, tmp_path / "index")
    test_split = list(index.splits)[1]
    config = config_of(tmp_path / "index", index, test_split)
    index = load_index(config.data.uri)
    make = tfds_record if layout == "tfds" else inception_record
    seen = set()
    with train_batches(config, index, 0, 1, 0, 24) as batches:
        for batch in batches:
            images = (np.asarray(batch["image"]) * 255).round().astype(np.uint8)
            for image, label, identity in zip(images, np.asarray(batch["label"]), np.asarray(batch["id"]), strict=True):
                shard, record = record_place(int(identity))
                number = shard * 40 + record
                encoded = make(number)[index.layout.image]
                np.testing.assert_array_equal(image, tf.io.decode_png(encoded, channels=index.image.channels))
                assert label == number % 3
                seen.add(number)
    assert len(seen) >= 160  # an epoch of four shards for four lanes
    with test_batches(config, index, 0, 1) as batches:
        assert sum(float(np.asarray(batch["weight"]).sum()) for batch in batches) == 40


def test_an_interrupted_index_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    read: list[str] = []
    whole = indexed(folder, tmp_path / "whole")

    def scanned(job: Job) -> Scanned:
        if len(read) == 4 and interrupted:
            raise KeyboardInterrupt
        read.append(job.file)
        return scan(job)

    monkeypatch.setattr(scan_notes, "scan", scanned)
    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        indexed(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    interrupted = False
    first = folder / read[0]
    os.utime(first, (1, 1))  # another file may be there now
    assert indexed(folder, tmp_path / "out") == whole
    assert sorted(read) == sorted([*(path.name for path in folder.glob("*tfrecord*")), first.name])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.json"]


def test_inception_says_its_classes(tmp_path: Path) -> None:
    folder = foreign_sets.inception(tmp_path / "set")
    index = indexed(folder, tmp_path / "index", name="other", licence="mine")
    assert (index.name, index.licence, index.classes, index.descriptions) == ("other", "mine", SYNSETS, CLASSES)
    assert (index.location, index.image.channels, index.layout.first_label) == (str(folder), 3, 1)
    assert index.splits["train"].shards[4].file == "train/train-00004-of-00005"
    assert not (folder / "index.json").exists()
    named = indexed(folder, tmp_path / "named", class_names=("a", "b", "c"))
    assert (named.classes, named.descriptions) == (("a", "b", "c"), ())


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001", [tfds_record(number) for number in range(9)])
    index = indexed(tmp_path)
    assert (index.classes, index.name, index.licence) == (("0", "1", "2"), tmp_path.name, "not stated")


def test_large_images_are_sampled_and_gray_among_colour_counts_as_colour(tmp_path: Path) -> None:
    def record(number: int) -> foreign_sets.Values:
        image = png(np.full((150, 200), 51, np.uint8)) if number % 2 else png(np.full((200, 130, 3), 102, np.uint8))
        return {"image": image, "label": number % 2}

    write(tmp_path / "train-00000-of-00001", [record(number) for number in range(40)])
    write(tmp_path / "test-00000-of-00001", [{"image": jpeg(1, (20, 300)), "label": 0}])
    index = indexed(tmp_path)
    assert (index.statistics_records, index.mean) == (3, (0.4, 0.4, 0.4))
    assert str(index.image) == "20 to 200 x 130 to 300"
    assert index.notes == ("20 of 41 images are gray, the others are not",)


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    calls: list[tuple[int, int]] = []
    alone = indexed(folder, tmp_path / "alone", report=lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [calls[0][1]] * 8
    assert calls[-1][0] == calls[-1][1]
    monkeypatch.setattr("trainer.data.foreign.SMALL_BYTES", 0)
    assert indexed(folder, tmp_path / "many") == alone


def test_only_its_own_index_is_replaced(tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    first = indexed(folder, tmp_path / "index")
    assert indexed(folder, tmp_path / "index") == first
    other = foreign_sets.inception(tmp_path / "other")
    with pytest.raises(DataError, match="index: holds the index of another data set"):
        indexed(other, tmp_path / "index")
    assert load_index(str(tmp_path / "index")) == first


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    for number in (1, 3):
        (folder / f"tiny-train.tfrecord-0000{number}-of-00005").unlink()
    with pytest.raises(DataError, match=r"tiny-train.tfrecord-\*-of-00005 2 are missing \(00001, 00003\)"):
        indexed(folder)


def test_a_split_that_ends_early_is_noticed(tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"][0] = "41"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"split train has 200 records, dataset_info.json says 201"):
        indexed(folder)


GOOD = tfds_record(0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({**GOOD, "label": 3}, r"label 3 is not in 0\.\.2"),
        ({**GOOD, "label": -1}, "label -1, the labels of this layout begin at 0"),
        ({**GOOD, "image": b"GIF89a"}, "not a PNG or JPEG image"),
        ({**GOOD, "image": png(pixels_of(0))[:50]}, "cannot be decoded"),
        ({**GOOD, "label": b"0"}, "label is not one whole number"),
        ({"label": 0}, "image is not one byte string"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, bad: foreign_sets.Values, reason: str) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    file = "tiny-train.tfrecord-00003-of-00005"
    write(folder / file, [*[tfds_record(number) for number in range(30)], bad])
    with pytest.raises(DataError, match=rf"{file}: record 30: {reason}"):
        indexed(folder)
    assert not (folder / "index.json").exists()


def test_inception_labels_begin_at_one(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001", [inception_record(0), {**inception_record(1), "image/class/label": 0}])
    with pytest.raises(DataError, match="record 1: label 0, the labels of this layout begin at 1"):
        indexed(tmp_path)


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    path = folder / "tiny-test.tfrecord-00001-of-00002"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path.name}: record 19: wrong checksum of its data"):
        indexed(folder)


def test_compressed_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001", [tfds_record(0)], "GZIP")
    with pytest.raises(DataError, match="train-00000-of-00001: is compressed with GZIP"):
        indexed(tmp_path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"readme.txt": []}, "holds no shards NAME-00000-of-00016"),
        ({"train-00000-of-00001": [{"picture": b""}]}, "has neither .* but picture"),
        ({"train-00000-of-00001": []}, "has neither .* but nothing"),
        ({"a-train-00000-of-00001": [GOOD], "b-train-00000-of-00001": [GOOD]}, "two sets of shards are called train"),
        ({"train-00000-of-00001": [GOOD]}, "all records are of one class"),
    ],
)
def test_what_is_not_a_set_is_refused(tmp_path: Path, files: dict[str, list], reason: str) -> None:
    for name, records in files.items():
        write(tmp_path / name, records)
    with pytest.raises(DataError, match=reason):
        indexed(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read"):
        indexed(tmp_path / "nowhere")
