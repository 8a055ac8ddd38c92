"""Options of a run that reach beyond one step: the mean of the weights, profile and timeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.harness import STEPS, checkpoints, records, start, train
from trainer import checkpoint

MEAN = {"optimizer.average_decay": "0.9", "evaluate.every_epochs": "0.25", "checkpoint.every_steps": "10"}


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged") / "run"
    train(folder, fields=MEAN)
    return folder


def test_tests_see_the_mean_and_training_does_not(averaged: Path, small_run: Path) -> None:
    assert [r["loss"] for r in records(averaged)] == [r["loss"] for r in records(small_run)]
    ours, theirs = (records(folder, "test")[-1] for folder in (averaged, small_run))
    assert ours["step"] == theirs["step"] == STEPS
    assert ours["loss"] != theirs["loss"]
    tensors = checkpoint.choose(averaged / "checkpoints", "last", print).tensors
    means = {name.removeprefix("average/"): value for name, value in tensors.items() if name.startswith("average/")}
    assert means
    for name, mean in means.items():
        assert mean.shape == tensors[f"weights/{name}"].shape
        assert np.abs(mean - tensors[f"weights/{name}"]).max() > 0


def test_what_is_evaluated_later_is_what_the_run_tested(tmp_path: Path, averaged: Path) -> None:
    """``capsnet evaluate`` builds the network anew, from the means in the checkpoint."""
    command = [sys.executable, "-m", "trainer", "evaluate", str(averaged), "--checkpoint", "last"]
    subprocess.run([*command, "--json", str(tmp_path / "score.json")], check=True)
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["accuracy"] == records(averaged, "test")[-1]["accuracy"]


def test_a_run_with_means_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path, averaged: Path) -> None:
    folder = tmp_path / "run"
    fault = {"phase": "input", "step": 25, "action": "kill"}
    code, _ = start(folder, fault=fault, fields=MEAN).finish()
    assert code == 75
    train(folder, recipe="")
    for kind in ("train", "test"):
        ours, theirs = ([r["loss"] for r in records(each, kind)] for each in (folder, averaged))
        assert ours == theirs
    assert checkpoints(folder)[-1] == f"step-{STEPS:08d}"


def test_weights_from_a_run_are_those_that_it_tested(tmp_path: Path, averaged: Path) -> None:
    folder = tmp_path / "next"
    train(folder, "--weights-from", str(averaged), fields={"optimizer.learning_rate": "1e-12", "train.epochs": "0.05"})
    best = max(record["accuracy"] for record in records(averaged, "test"))
    assert records(folder, "test")[-1]["accuracy"] == pytest.approx(best, abs=1 / 2000)  # one record on the edge


@pytest.mark.parametrize("ranks", [None, 2])
def test_steps_are_profiled_and_reductions_timed(tmp_path: Path, ranks: int | None) -> None:
    folder = tmp_path / "run"
    fields = {"log.profile_steps": "5,8", "log.horovod_timeline": "true", "train.epochs": "0.13"}  # ten steps
    train(folder, ranks=ranks, fields=fields)
    (profile,) = folder.glob("plugins/profile/*/*.xplane.pb")
    assert b"MatMul" in profile.read_bytes()
    timeline = folder / "horovod-timeline.json"
    if ranks is None:  # without Horovod there are no reductions
        assert not timeline.exists()
    else:
        events = json.loads(timeline.read_text())
        assert any("gradient" in str(event.get("args", {}).get("name", "")) for event in events)


def test_a_profile_that_is_no_range_is_refused(tmp_path: Path) -> None:
    for wrong in ("5", "8,5", "0,3"):
        code, output = start(tmp_path / "run", ranks=None, fields={"log.profile_steps": wrong}).finish()
        assert code == 2
        assert f"profile_steps is FIRST,LAST, as 100,110, not {wrong}" in output
