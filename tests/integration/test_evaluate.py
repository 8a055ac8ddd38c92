"""``capsnet evaluate`` on a real run: the figures of training, on any number of ranks, in every place that it tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.integration.harness import records
from trainer import eventfiles


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("evaluated") / "run"))


def evaluate(run: Path, *arguments: str, ranks: int | None = None, code: int = 0) -> str:
    launch = [] if ranks is None else ["launch", "--ranks", str(ranks)]
    command = [sys.executable, "-m", "trainer", *launch, "evaluate", str(run), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def written(folder: Path) -> dict[str, Any]:
    return {
        value.tag: value
        for path in eventfiles.paths(folder)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


def test_figures_are_those_of_training_bit_for_bit_and_ranks_share_the_records(run: Path, tmp_path: Path) -> None:
    printed = evaluate(run, "--json", str(tmp_path / "one.json"))
    evaluate(run, "--json", str(tmp_path / "two.json"), ranks=2)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    trained = records(run, "test")[-1]
    assert f"test accuracy: {100 * trained['accuracy']:.2f} % of 2000" in printed
    for name in ("accuracy", "top5", "loss", "margin", "reconstruction"):
        assert one[name] == trained[name], name
    assert one["records"] == 2000 == sum(map(sum, one["confusion"])) == sum(b["records"] for b in one["bins"])
    assert one["step"] == trained["step"]
    assert two["records"] == 2000
    # other batches: a score on the edge between two classes may fall on its other side by rounding
    assert two["accuracy"] == pytest.approx(one["accuracy"], abs=1 / 2000)
    assert (
        sum(
            abs(a - b)
            for r, s in zip(one["confusion"], two["confusion"], strict=True)
            for a, b in zip(r, s, strict=True)
        )
        <= 4
    )


def test_all_test_sets_in_all_places(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in eventfiles.paths(run)}
    scores = []
    for _ in range(2):  # the second time replaces what the first one wrote
        printed = evaluate(run, "--all", "--json", str(tmp_path / "score.json"), "--plots", str(tmp_path / "plots"))
        scores.append(json.loads((tmp_path / "score.json").read_text())["tests"])
    assert max(len(line) for line in printed.splitlines() if ":" not in line[:14]) <= 80  # but for paths
    assert scores[0] == scores[1]
    tests = scores[1]
    assert list(tests) == ["test", "affine", "overlap"]
    assert tests["affine"]["accuracy"] < tests["test"]["accuracy"]
    assert (tests["overlap"]["objects"], tests["overlap"]["records"]) == (2, 2000)
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {f"{test}-{what}.png" for test in ("test", "affine") for what in ("calibration", "confusion")}
    for name, score in tests.items():
        folder = run / "evaluation" / name
        assert len(eventfiles.paths(folder)) == 1
        values = written(folder)
        assert tf.make_ndarray(values["evaluation/accuracy"].tensor) == pytest.approx(score["accuracy"], rel=1e-6)
        assert ("evaluation/confusion" in values) == (name != "overlap")
    assert {path: path.read_bytes() for path in eventfiles.paths(run)} == before  # the run's own files are left alone


def test_another_split_does_not_replace_the_score_of_the_tests(run: Path) -> None:
    assert "split train" in evaluate(run, "--split", "train")
    assert (run / "evaluation" / "test").exists() or evaluate(run)  # another test of this run may have scored it
    step = records(run)[-1]["step"]
    for name, count in (("test", 2000), ("test-train", 10000)):
        value = written(run / "evaluation" / name)["evaluation/accuracy"]
        assert f"{count:,} records" in value.metadata.summary_description
        assert f"step {step}" in value.metadata.summary_description


def test_what_cannot_be_tested_is_refused(small_pairs: Path, tmp_path: Path) -> None:
    pairs = shutil.copytree(small_pairs, tmp_path / "pairs")
    for test in ("affine", "overlap"):
        assert f"--{test}: this run was trained on pairs" in evaluate(pairs, f"--{test}", code=2)
    assert "pairs, both found" in evaluate(pairs, "--all")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_computed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option, place in (("--json", "file/score.json"), ("--json", "."), ("--plots", "file")):
        said = evaluate(run, option, str(tmp_path / place), code=2)
        assert said.startswith(f"capsnet: {option} {tmp_path}")
        assert len(said.splitlines()) == 1
