"""A cell of a learning study: a real training run under the study's budget. ``python -m trainer.probe.learning``.

What it leaves is read from the run as a person would: the score from ``capsnet evaluate``, training accuracy from
metrics.jsonl, the health of routing from the events.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.util.tensor_util import make_ndarray

from trainer import eventfiles
from trainer.errors import EXIT_DIVERGED, EXIT_DONE
from trainer.probe.command import capsnet, overrides, said, training_records
from trainer.probe.records import COLLAPSED, ERROR, NOT_FINITE, OK
from trainer.probe.watch import leave
from trainer.rundir import RunDirectory

SIGNS = 2
"""Of dying, at least: uniform couplings alone are no death."""
LAST_SHARE = 0.2
"""Of a run, over which training accuracy is a mean."""
BY_ITERATION = re.compile(r"(.*/(?:entropy|effective_parents|unassigned))_iteration_(\d+)")
INNER = re.compile(r"layer_\d+/(.*)")
KEPT = ("entropy", "gradient_children", "gradient_parents", "dead_parents", "silent_parents")
"""Of convolutional capsule layers, of which there may be many."""
WANTED = ("routing/", "capsules/", "gradients/")
OF_LAYER = re.compile("^(?:routing|capsules)/")


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    run, score = RunDirectory(answer.parent / "run"), answer.parent / "score.json"
    done = capsnet("train", given["recipe"], "--run", str(run.path), *overrides(given["fields"]))
    if done.returncode == EXIT_DIVERGED:
        leave(answer, NOT_FINITE, said(done))
        return 0
    if done.returncode == EXIT_DONE:
        done = capsnet("evaluate", str(run.path), "--json", str(score))
    if done.returncode != EXIT_DONE:
        leave(answer, ERROR, said(done))
        return 0
    training = training_records(run.metrics)
    numbers = {**scores(json.loads(score.read_text()), training), **health(run.path)}
    dead = numbers.get("alarm_last", 0.0) >= SIGNS
    why = (
        f"{SIGNS} or more signs of dying at the end: uniform couplings, lengths near 0, a resting loss" if dead else ""
    )
    leave(answer, COLLAPSED if dead else OK, why, curves(training), **numbers)
    return 0


def scores(found: Any, training: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the test split: accuracy, loss, lead of the right class and calibration error; of training: the last fifth's
    accuracy, and the median speed."""
    last = training[-max(1, round(LAST_SHARE * len(training))) :]
    return {
        **{name: found[name] for name in ("accuracy", "loss", "lead", "calibration_error")},
        "train_accuracy": float(np.mean([each["accuracy"] for each in last])),
        "images_per_second": float(np.median([each["images_per_second"] for each in training])),
    }


def curves(training: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Of training, at each record of the run: step, loss, accuracy of the records since the last."""
    return {name: [float(each[name]) for each in training] for name in ("step", "loss", "accuracy")}


def health(run: Path) -> dict[str, float]:
    """First and last value of every number that TensorBoard shows of routing and gradients, by a short name.

    Of numbers for each iteration those of the last iteration stand without its number; ``entropy``, ``gradient_stem``
    and the others of ``SHORT`` are those that reports and thresholds ask for.
    """
    values: dict[str, list[float]] = {}
    for path in eventfiles.paths(run):
        for event in eventfiles.events(path):
            for value in event.summary.value:
                if value.tag.startswith(WANTED):
                    number = _number(value)
                    if number is not None:
                        values.setdefault(OF_LAYER.sub("", value.tag), []).append(number)
    newest: dict[str, int] = {}
    for tag in values:
        if match := BY_ITERATION.fullmatch(tag):
            newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
    told = {tag: seen for tag, seen in values.items() if not BY_ITERATION.fullmatch(tag)}
    told |= {tag: values[f"{tag}_iteration_{last}"] for tag, last in newest.items()}
    told = {tag: seen for tag, seen in told.items() if not (match := INNER.match(tag)) or match[1] in KEPT}
    told |= {name: told[tag] for name, tag in SHORT.items() if tag in told}
    stems = [tag for tag in told if tag.startswith("gradients/stem/")]
    if stems:
        told["gradient_stem"] = told[stems[0]]
    found = {}
    for tag, seen in told.items():
        found[f"{tag}_first"], found[f"{tag}_last"] = seen[0], seen[-1]
    return found


SHORT = {
    name: f"class_capsules/{name}"
    for name in ("entropy", "effective_parents", "winner_changed", "favourite_changed", "agreement")
}


def _number(value: Any) -> float | None:
    array = make_ndarray(value.tensor) if value.HasField("tensor") else np.asarray(value.simple_value)
    return float(array) if array.dtype.kind == "f" and array.ndim == 0 else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
