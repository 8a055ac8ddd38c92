"""A cell of a learning study: a real training run under the study's budget. ``python -m trainer.probe.learning``.

What it leaves is read from the run as a person would: accuracy from metrics, the health of routing from the events.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.util.tensor_util import make_ndarray

from trainer import eventfiles
from trainer.errors import EXIT_DIVERGED, EXIT_DONE
from trainer.probe.records import COLLAPSED, ERROR, NOT_FINITE
from trainer.probe.watch import leave
from trainer.rundir import RunDirectory

LAST_LINES = 2
SIGNS = 2
"""Of dying, at least: uniform couplings alone are no death."""
ENTROPY = re.compile(r"class_capsules/entropy_iteration_(\d+)")
WANTED = ("routing/", "gradients/")


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    run = RunDirectory(answer.parent / "run")
    fields = [f"--{name}={value}" for name, value in given["fields"].items()]
    command = [sys.executable, "-m", "trainer", "train", given["recipe"], "--run", str(run.path), *fields]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = " / ".join(done.stderr.strip().splitlines()[-LAST_LINES:])
    if done.returncode == EXIT_DIVERGED:
        leave(answer, NOT_FINITE, said)
    elif done.returncode != EXIT_DONE:
        leave(answer, ERROR, said or f"exit code {done.returncode}")
    else:
        numbers = {**scores(run.metrics), **health(run.path)}
        dead = numbers.get("alarm_last", 0.0) >= SIGNS
        why = "uniform couplings and class capsules near 0 at the end" if dead else ""
        leave(answer, **{"outcome": COLLAPSED, "why": why} if dead else {}, **numbers)  # type: ignore[arg-type]
    return 0


def scores(metrics: Path) -> dict[str, float]:
    """Of the last test, and the mean speed."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    tests = [each for each in records if each["kind"] == "test"]
    rates = [each["images_per_second"] for each in records if each["kind"] == "train"]
    last = tests[-1]
    return {"accuracy": last["accuracy"], "loss": last["loss"], "images_per_second": float(np.median(rates))}


def health(run: Path) -> dict[str, float]:
    """First and last value of every number that TensorBoard shows of routing and gradients, by a short name."""
    values: dict[str, list[float]] = {}
    for path in eventfiles.paths(run):
        for event in eventfiles.events(path):
            for value in event.summary.value:
                if value.tag.startswith(WANTED):
                    number = _number(value)
                    if number is not None:
                        values.setdefault(value.tag.removeprefix("routing/"), []).append(number)
    found = {}
    for tag, seen in values.items():
        found[f"{tag}_first"], found[f"{tag}_last"] = seen[0], seen[-1]
    last = max((int(match[1]) for tag in values if (match := ENTROPY.fullmatch(tag))), default=0)
    if last:  # of the class capsules, in the last iteration
        found["entropy_last"] = found[f"class_capsules/entropy_iteration_{last}_last"]
    return found


def _number(value: Any) -> float | None:
    array = make_ndarray(value.tensor) if value.HasField("tensor") else np.asarray(value.simple_value)
    return float(array) if array.dtype.kind == "f" and array.ndim == 0 else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
