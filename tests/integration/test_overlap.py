"""Crowded scenes in real runs, on the embedded Fashion-MNIST."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.harness import losses, records, train

OVERLAP = {
    "data.overlap.enabled": "true",
    "model.image_size": "36",
    "data.augment.shift": "0",
    "train.epochs": "0.2",
    "checkpoint.every_steps": "6",
    "log.observe_every_steps": "10",
}
STEPS = 16  # of 78 an epoch


def evaluated(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "trainer", "evaluate", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def score(said: str) -> list[str]:
    found = re.search(r"test accuracy: ([\d.]+) % of (\d+) .*?loss: +([\d.]+)", said, re.DOTALL)
    assert found, said
    return list(found.groups())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "run"
    train(folder, fields=OVERLAP)
    return folder


def test_scenes_train_resume_and_are_scored(whole: Path, tmp_path: Path) -> None:
    resumed = tmp_path / "resumed"
    found = losses(whole)
    assert len(found) == STEPS
    assert found[-1] < found[0]
    (test,) = records(whole, "test")
    assert {"accuracy", "loss", "margin", "reconstruction"} <= test.keys()
    code, said = evaluated(whole, "--checkpoint", "last")
    assert (code, score(said)[:2]) == (0, [f"{100 * test['accuracy']:.2f}", "2000"])
    assert score(said)[2] == f"{test['loss']:.4f}"

    train(resumed, fields={**OVERLAP, "train.epochs": "0.09"})
    train(resumed, recipe="", fields={"train.epochs": "0.2"}, small=False)
    assert losses(resumed) == found

    code, said = evaluated(whole, "--affine")
    assert code == 2
    assert "--affine: this run was trained on pairs" in said


def test_two_ranks_see_the_scenes_of_one(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed: make horovod")
    train(tmp_path / "run", ranks=2, fields=OVERLAP)
    # float32 sums in another order, grown over 16 updates; another scene gives another loss at once
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = (records(folder, "test")[-1] for folder in (tmp_path / "run", whole))
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1 / 2000)  # one record on the edge
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
