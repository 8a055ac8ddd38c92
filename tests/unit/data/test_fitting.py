"""The command that ``capsnet data prepare`` prints at its end is one that trains."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from trainer import cli, cli_data, configs, plan
from trainer.data.index import FORMAT, Block, ImageSize, Index, Shard, Split, dump_index
from trainer.rundir import RunDirectory

RECIPES = ("quick", "efficient_capsnet", "sabour2017_cifar10", "imagenet")
SIZES = {
    "square": (32, 32, 32, 32),
    "uniform": (60, 60, 80, 80),
    "mixed": (20, 500, 30, 400),
    "huge": (1500, 1500, 1500, 1500),
    "tiny": (8, 8, 8, 8),
}
SPLITS = {
    "train and test": {"train": (512, 16), "test": (40, 4)},
    "train and val": {"train": (512, 16), "val": (40, 4)},
    "other names": {"train-clean": (512, 16), "a b": (40, 1)},
    "few shards": {"train": (512, 3), "test": (40, 1)},
    "few records": {"train": (180, 16), "test": (20, 4)},
    "a dozen": {"train": (9, 9), "test": (3, 3)},
}


def written(folder: Path, size: tuple[int, ...], splits: dict[str, tuple[int, int]]) -> Index:
    """An index of a data set of 12 colour classes, with shards of nothing."""
    made: dict[str, Split] = {}
    for split, (records, shards) in splits.items():
        parts = []
        for number in range(shards):
            count = records * (number + 1) // shards - records * number // shards
            file = f"{split.replace(' ', '_')}-{number}.tfrecord"
            (folder / file).write_bytes(bytes(count))
            parts.append(Shard(file=file, records=count, bytes=count, crc32c=0, blocks=(Block(count, count, 0),)))
        made[split] = Split(records=records, class_records=(records, *[0] * 11), shards=tuple(parts))
    image = dict(zip(("height_min", "height_max", "width_min", "width_max"), size, strict=True))
    index = Index(
        format=FORMAT,
        name="set",
        classes=tuple(f"class {number}" for number in range(12)),
        image=ImageSize(channels=3, **image),
        mean=(0.5,) * 3,
        deviation=(0.2,) * 3,
        splits=made,
        source="",
        licence="",
        command="",
    )
    (folder / "index.json").write_bytes(dump_index(index))
    return index


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("size", "splits"), [(size, "train and test") for size in SIZES] + [("square", s) for s in SPLITS]
)
def test_what_is_printed_next_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, size: str, splits: str
) -> None:
    folder = tmp_path / "a set"
    folder.mkdir()
    cli_data._summary(written(folder, SIZES[size], SPLITS[splits]), str(folder))
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["capsnet", "train", "RECIPE"]
    command = cli._command(cli._parsed(["train", recipe, *words[3:]]))
    plan.make(command, 1, print, RunDirectory(tmp_path / "run"), lock=False)


def test_recipes_have_no_more_lanes_and_no_larger_batches() -> None:
    from trainer.data import fitting

    for name in configs.names():
        config = configs.load(name)
        assert config.data.lanes <= fitting.LANES
        assert config.train.global_batch_size <= fitting.BATCH
