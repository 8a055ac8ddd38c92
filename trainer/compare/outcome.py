"""What the files of a run say: how far it is, how it ended, what it measured. Nothing here runs anything."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer import checkpoint
from trainer import config as configuration
from trainer.compare.plan import Cell, Folder
from trainer.errors import EXIT_DIVERGED, EXIT_DONE, ConfigError
from trainer.rundir import RunDirectory

State = Literal["missing", "begun", "trained", "done", "diverged", "failed"]
WARM_UP_RECORDS = 1
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """A run as it is on disk. Values that are not known are None.

    ``missing``: not begun; ``begun``: to be resumed; ``trained``: to be scored on the affine set; ``failed``: ended
    otherwise than it should, and is tried again when asked.
    """

    state: State
    step: int = 0
    cause: str = ""
    test_accuracy: float | None = None
    affine_accuracy: float | None = None
    images_per_second: float | None = None
    peak_memory_mib: float | None = None
    seconds: float | None = None
    versions: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to do; a run that diverged would do so again."""
        return self.state in ("done", "diverged")


def read(folder: Folder, cell: Cell, steps: int) -> Outcome:
    """Of a run of so many steps.

    Raises:
        ConfigError: the run directory holds a run with another configuration.
    """
    directory = RunDirectory(folder.run(cell))
    ended = _json(folder.outcome(cell))
    cause, versions = ended.get("cause", ""), ended.get("versions")
    if not directory.exists:
        state: State = "failed" if ended.get("code", EXIT_DONE) != EXIT_DONE else "missing"
        return Outcome(state, cause=cause, versions=versions)
    _check_same(directory, cell)
    records = records_of(directory.metrics)
    train = [record for record in records if record["kind"] == "train"]
    step = train[-1]["step"] if train else 0
    score = test_accuracy(records, steps) if _is_saved(directory, steps) else None
    affine = _json(folder.affine(cell))
    affine_accuracy = affine.get("accuracy") if affine.get("step") == steps else None
    code = ended.get("code", EXIT_DONE)
    state = "begun"
    if code == EXIT_DIVERGED:
        state = "diverged"
    elif score is not None and (cell.overlap or affine_accuracy is not None):
        state, cause = "done", ""
    elif code != EXIT_DONE:
        state = "failed"
    elif score is not None:
        state = "trained"
    return Outcome(
        state,
        step,
        cause,
        score,
        affine_accuracy,
        images_per_second(train),
        peak_memory_mib(train),
        train[-1].get("seconds") if train else None,
        versions,
    )


def records_of(path: Path) -> list[dict[str, Any]]:
    """Whole records of a metrics.jsonl; a last line may still be being written."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_accuracy(records: list[dict[str, Any]], steps: int) -> float | None:
    """Of the last step, not of the best: that would be chosen by the test set."""
    found = [record["accuracy"] for record in records if record["kind"] == "test" and record["step"] == steps]
    return found[-1] if found else None


def images_per_second(train: list[dict[str, Any]]) -> float | None:
    """Median of a run's records of training; the first, in which memory is still being fetched, left out."""
    rates = [record["images_per_second"] for record in train if record.get("images_per_second")]
    return statistics.median(rates[WARM_UP_RECORDS:] or rates) if rates else None


def peak_memory_mib(train: list[dict[str, Any]]) -> float | None:
    """Over all parts of a run."""
    return max((record["peak_memory_mib"] for record in train if record.get("peak_memory_mib")), default=None)


def _is_saved(directory: RunDirectory, steps: int) -> bool:
    return any(checkpoint.step_of(path) == steps for path in checkpoint.paths(directory.checkpoints))


def _check_same(directory: RunDirectory, cell: Cell) -> None:
    changes = configuration.differences(configuration.load(directory.config), cell.config)
    changed = [
        f"{path} ({before} -> {now})" for path, before, now, neutral in changes if not neutral or path == "train.epochs"
    ]
    if changed:
        raise ConfigError(f"{directory.path} was trained with another {', '.join(changed)}; choose another --output")


def _json(path: Path) -> dict[str, Any]:
    """An object, empty where the file is not there or is none."""
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def last_step(path: Path) -> int:
    """Of a metrics.jsonl that grows, 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return 0
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def remaining_seconds(
    cells: list[tuple[Cell, Outcome]], current: str = "", whole: float = math.nan, left: float = math.nan
) -> float:
    """Seconds that the runs still need, by those of the same arm that are done, else by all; nan where none is.

    Args:
        current: name of the cell that runs.
        whole: what all of it will have taken, if that can be told yet, and ``left`` what is left of it.
    """
    known: dict[tuple[str, bool], list[float]] = {}
    for cell, outcome in cells:
        if outcome.state == "done" and outcome.seconds:
            known.setdefault((cell.arm, cell.overlap), []).append(outcome.seconds)
        elif cell.name == current and math.isfinite(whole):
            known.setdefault((cell.arm, cell.overlap), []).append(whole)
    every = [seconds for values in known.values() for seconds in values]
    if not every:
        return math.nan
    total = 0.0
    for cell, outcome in cells:
        if cell.name == current and math.isfinite(left):
            total += left
        elif not outcome.is_final:
            total += statistics.mean(known.get((cell.arm, cell.overlap), every))
    return total
