from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.small_sets import SmallSet
from trainer.config import with_overrides
from trainer.data.index import check_fits, dump_index, load_index, steps_per_epoch
from trainer.errors import ConfigError, DataError

MakeSet = Callable[..., SmallSet]


def raises_one_line(uri: str | Path, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        load_index(str(uri))
    assert "\n" not in str(caught.value)
    assert str(uri) in str(caught.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads((folder / "index.json").read_text())
    change(tree)
    (folder / "index.json").write_text(json.dumps(tree))


def test_what_was_written_is_loaded(small_set: MakeSet) -> None:
    made = small_set()
    assert load_index(str(made.folder)) == made.index
    assert (made.folder / "index.json").read_bytes() == dump_index(made.index)


def test_missing_folder(tmp_path: Path) -> None:
    raises_one_line(tmp_path / "nowhere", "no such folder")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    raises_one_line(tmp_path / "file", "Not a directory")


def test_empty_folder(tmp_path: Path) -> None:
    raises_one_line(tmp_path, "holds no files")


def test_no_index(small_set: MakeSet) -> None:
    folder = small_set().folder
    (folder / "index.json").unlink()
    raises_one_line(folder, "index.json: missing")


def test_other_places_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"s3://bucket/set: .* local folder or gs://BUCKET/"):
        load_index("s3://bucket/set")


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_not_json(small_set: MakeSet, text: str) -> None:
    folder = small_set().folder
    (folder / "index.json").write_text(text)
    raises_one_line(folder, "not JSON")


@pytest.mark.parametrize(("version", "named"), [(2, "format 2"), ("1", "format 1"), (None, "no format number")])
def test_another_format(small_set: MakeSet, version: object, named: str) -> None:
    folder = small_set().folder
    edit(folder, lambda tree: tree.update(format=version))
    raises_one_line(folder, named)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_json_of_another_kind(small_set: MakeSet, text: str) -> None:
    folder = small_set().folder
    (folder / "index.json").write_text(text)
    raises_one_line(folder, "no format number")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tree: tree.pop("classes"), "classes: Field required"),
        (lambda tree: tree.update(colour="red"), "colour: Extra inputs"),
        (lambda tree: tree["splits"]["train"].update(records=7), "do not add up"),
        (lambda tree: tree["splits"]["test"]["shards"][0].update(records=7), "do not add up"),
        (lambda tree: tree["splits"]["test"]["shards"][1].update(bytes=7), "do not add up"),
        (lambda tree: tree["splits"]["test"]["shards"][0].update(file="../secret"), "file: String should match"),
        (lambda tree: tree["splits"]["train"].update(class_records=[131]), "counts 1 classes"),
        (lambda tree: tree.update(mean=[]), "one value for each channel"),
    ],
)
def test_an_index_that_contradicts_itself(
    small_set: MakeSet, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    folder = small_set().folder
    edit(folder, change)
    raises_one_line(folder, reason)


def test_missing_shard(small_set: MakeSet) -> None:
    folder = small_set().folder
    (folder / "train-00003-of-00009.tfrecord").unlink()
    raises_one_line(folder, "train-00003-of-00009.tfrecord: missing")


def test_shard_of_another_size(small_set: MakeSet) -> None:
    folder = small_set().folder
    with open(folder / "test-00001-of-00002.tfrecord", "ab") as file:
        file.write(b"x")
    raises_one_line(folder, r"test-00001-of-00002.tfrecord: has \d+ bytes, the index says")


def test_a_config_that_fits(small_set: MakeSet) -> None:
    made = small_set()
    check_fits(made.index, made.config)
    check_fits(made.index, with_overrides(made.config, {"data.augment.resize": "crop", "model.image_size": 4}))
    for resize in ("whole", "random_resized_crop"):
        larger = {"data.augment.resize": resize, "model.image_size": 64}
        check_fits(made.index, with_overrides(made.config, larger))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"model.classes": 10}, "set model.classes to 3"),
        ({"model.channels": 3}, "set model.channels to 1"),
        ({"model.image_size": 7}, "images of 6x6 pixels, the model takes 7x7"),
        ({"model.image_size": 7, "data.augment.resize": "crop"}, "too small for crops of 7x7"),
        ({"data.train_split": "training"}, "no split training; it has train, test"),
        ({"data.test_split": "val"}, "no split val"),
        ({"data.lanes": 16, "train.global_batch_size": 16}, "set data.lanes to at most 9"),
        ({"train.global_batch_size": 132}, "not enough for one"),
    ],
)
def test_a_config_that_does_not_fit(small_set: MakeSet, overrides: dict[str, object], reason: str) -> None:
    made = small_set()
    with pytest.raises(DataError, match=reason) as caught:
        check_fits(made.index, with_overrides(made.config, overrides))
    assert "\n" not in str(caught.value)


def test_steps_count_the_poorest_lane(small_set: MakeSet) -> None:
    split = small_set().index.splits["train"]  # 9 shards of 14 or 15 records, 4 lanes: two shards a lane at least
    assert sorted(shard.records for shard in split.shards)[:2] == [14, 14]
    assert steps_per_epoch(split, lanes=4, global_batch=8) == 28 // 2
    assert steps_per_epoch(split, lanes=1, global_batch=8) == 131 // 8
    assert steps_per_epoch(split, lanes=10, global_batch=10) == 0
