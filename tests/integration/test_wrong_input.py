"""Wrong input: one line that says what, where and what to do, exit 2, before TensorFlow starts, nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.data.index import folder_of


def capsnet(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", *arguments], capture_output=True, text=True, cwd=cwd
    )


def split(done: subprocess.CompletedProcess[str]) -> tuple[list[str], bool]:
    """What was said on stderr, and whether TensorFlow was imported."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return said, any(line.endswith("| tensorflow") for line in done.stderr.splitlines())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_of("embedded"), tmp_path / "data"))


CASES = {
    "recipe": (["train", "quik"], r"unknown recipe quik (did you mean quick?)"),
    "field": (["train", "--model.routing.iteration", "2"], "did you mean --model.routing.iterations?"),
    "value": (["train", "--model.routing.iterations", "0"], "model.routing.iterations: "),
    "word": (["train", "quick", "model.routing.iterations=2"], "a field is given as --name value"),
    "batch": (["train", "--train.global_batch_size", "100"], "100 is not a multiple of data.lanes 8"),
    "classes": (["train", "--model.classes", "7"], "7"),
    "size": (["train", "--model.image_size", "32"], "28"),
    "grid": (["train", "sabour2017", "--model.primary.kernel", "25"], "model.primary"),
    "no data": (["train", "--data.uri", "nowhere"], "nowhere"),
    "no run": (["train", "--from-run", "nowhere"], "nowhere/config.json: cannot be read"),
    "no checkpoint": (["evaluate", "nowhere"], "nowhere/checkpoints: no checkpoint"),
    "no checkpoint of that step": (["evaluate", "nowhere", "--checkpoint", "9"], "nowhere/checkpoints: no checkpoint;"),
    "two configurations": (["train", "quick", "--from-run", "x"], "not both"),
    "head alone": (["train", "--new-head"], "--weights-from"),
    "command": (["trian"], "unknown command trian (did you mean train?)"),
    "option": (["predict", "x", "y.png", "--chekpoint", "last"], "did you mean --checkpoint?"),
    "no bucket": (["train", "--run", "gs://"], "gs://: names no bucket"),
    "a bucket's name": (["evaluate", "gs://_no/x"], "gs://_no/x: names no bucket"),
    "study": (["probe", "run", "smok"], "unknown study smok (did you mean smoke?)"),
    "shard of a study": (["probe", "run", "smoke", "--shard", "2/2"], "--shard 2/2: give i/N"),
    "time of a cell": (["probe", "run", "smoke", "--seconds", "-1"], "--seconds -1: give more than 0"),
    "no results": (["probe", "report", "nowhere"], "nowhere: cannot be read"),
    "ranks": (["launch", "--ranks", "0", "train"], "--ranks 0: give 1 or more"),
    "arm": (["compare", "--routing", "dynamc"], "unknown arm dynamc (did you mean dynamic?)"),
    "arm's field": (["compare", "--routing", "x:model.routing.iteration=2"], "did you mean model.routing.iterations?"),
    "arm's value": (["compare", "--routing", "x:model.routing.iterations=0"], "arm x: model.routing.iterations: "),
    "arm's data": (["compare", "--routing", "dynamic,sabour2017_cifar10"], "arm sabour2017_cifar10: data set"),
    "field for all arms": (["compare", "--model.routing.iteration", "2"], "did you mean --model.routing.iterations?"),
    "recipe of arms": (["compare", "quik"], "unknown recipe quik (did you mean quick?)"),
    "seeds": (["compare", "--seeds", "0"], "--seeds 0: give 1 or more"),
    "not a comparison": (["compare", "--output", "."], "neither empty nor a comparison"),
    "accumulate": (["train", "--train.accumulate", "7"], "not a multiple of train.accumulate 7"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_before_tensorflow(tmp_path: Path, case: str) -> None:
    arguments, expected = CASES[case]
    (tmp_path / "a file").touch()
    done = capsnet(*arguments, cwd=tmp_path)
    said, imported = split(done)
    assert done.returncode == 2
    assert len(said) == 1
    assert said[0].startswith("capsnet: ")
    assert expected in said[0]
    assert not imported
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_wrong_words_behind_launch_are_said_once(tmp_path: Path, ranks: str) -> None:
    done = capsnet("launch", "--ranks", ranks, "train", "--model.routing.iteration", "2", cwd=tmp_path)
    said, _ = split(done)
    assert (done.returncode, len(said)) == (2, 1), done.stderr
    assert "did you mean --model.routing.iterations?" in said[0]
    assert capsnet("launch", "evaluate", cwd=tmp_path).returncode == 2


def test_a_suggested_number_of_lanes_is_one_that_works(tmp_path: Path) -> None:
    done = capsnet("launch", "--ranks", "3", "train", "--train.global_batch_size", "120", cwd=tmp_path)
    said, _ = split(done)
    assert (done.returncode, len(said)) == (2, 1), done.stderr
    lanes = int(re.search(r"--data.lanes (\d+)", said[0])[1])  # type: ignore[index]
    assert lanes % 3 == 0
    assert 120 % lanes == 0


def test_a_data_set_cut_short(tmp_path: Path, data: Path) -> None:
    (data / "train-00003-of-00016.tfrecord").write_bytes(b"")
    done = capsnet("train", "--data.uri", str(data), cwd=tmp_path)
    said, imported = split(done)
    assert (done.returncode, len(said), imported) == (2, 1, False)
    assert "train-00003-of-00016.tfrecord" in said[0]


def test_an_index_of_another_version(tmp_path: Path, data: Path) -> None:
    index = json.loads((data / "index.json").read_text())
    (data / "index.json").write_text(json.dumps({**index, "format": 99}))
    done = capsnet("train", "--data.uri", str(data), cwd=tmp_path)
    said, imported = split(done)
    assert (done.returncode, len(said), imported) == (2, 1, False)
    assert "99" in said[0]


def test_a_file_in_place_of_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = capsnet("train", "--run", str(tmp_path / "file"), cwd=tmp_path)
    said, imported = split(done)
    assert (done.returncode, len(said), imported) == (2, 1, False)
    assert "cannot be written" in said[0]


def test_help_is_quick_because_tensorflow_is_not_imported(tmp_path: Path) -> None:
    commands = ("train", "evaluate", "predict", "export", "launch", "compare")
    for arguments in (["--help"], *([command, "--help"] for command in commands), ["recipes"], []):
        done = capsnet(*arguments, cwd=tmp_path)
        assert done.returncode == 0
        assert not split(done)[1]
        assert done.stdout


def test_help_of_train_shows_every_field(tmp_path: Path) -> None:
    from trainer import config

    text = capsnet("train", "--help", cwd=tmp_path).stdout
    for path, _ in config.leaves():
        assert path == "recipe" or f"--{path} " in text


def test_several_ranks_without_the_supervisor_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed: make horovod")
    from trainer.launch import mpi

    done = subprocess.run(
        mpi.command(2, [sys.executable, "-m", "trainer", "train"], None, {}),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "start several ranks with 'capsnet launch --ranks 2 train ...'" in done.stderr
    assert not list(tmp_path.rglob("config.json"))
