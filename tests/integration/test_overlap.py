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


def test_scenes_train_resume_and_are_scored(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(whole, fields=OVERLAP)
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


def test_two_ranks_see_the_scenes_of_one(tmp_path: Path) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed: make horovod")
    fields = {**OVERLAP, "train.epochs": "0.1", "train.precision": "float64", "log.observe_every_steps": "0"}
    for ranks in (1, 2):
        train(tmp_path / f"{ranks}", ranks=ranks, fields=fields)
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-10)
    ours, theirs = (records(tmp_path / name, "test")[-1] for name in ("1", "2"))
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10)
