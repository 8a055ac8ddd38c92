"""Where a score goes: terminal, TensorBoard, pictures, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.errors import ConfigError
from trainer.output import evaluated
from trainer.rundir import EVALUATION
from trainer.scoring import board, plots, table
from trainer.scoring.report import Report, as_json
from trainer.scoring.request import Request
from trainer.storage import Location
from trainer.summaries import figures


def tell(request: Request, report: Report, say: Callable[[str], None]) -> None:
    """Says one report and draws it.

    Raises:
        ConfigError: a file cannot be written. InterruptedRun: the disk is full. StorageError, StorageRefused.
    """
    say(f"\n{table.title(report)}")
    for line in table.lines(report):
        say(line)
    say("")
    name = report.subject.test + request.beside
    if request.plot_folder is not None and report.confusion:
        for what, drawn in plots.PLOTS.items():
            path = request.plot_folder / f"{name}-{what}.png"
            _write(path, figures.png(drawn(report)), "--plots")
            say(f"{what + ':':{table.KEY}}{path}")
    try:
        written: Location = board.write(request.run, name, report)
    except OSError as error:
        raise ConfigError(f"{request.run / EVALUATION}: cannot be written ({error.strerror})") from None
    if storage.is_cloud(request.place):
        written = evaluated.store(str(request.place), name, Path(written))
    say(f"{'TensorBoard:':{table.KEY}}{written}")


def write_json(file: Path, reports: Sequence[Report]) -> None:
    """Of one test set its values, of several each by its name. Raises ConfigError."""
    trees: dict[str, Any] = {report.subject.test: as_json(report) for report in reports}
    tree = next(iter(trees.values())) if len(trees) == 1 else {"tests": trees}
    text = re.sub(r"\[[\d\s,]+\]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(tree, indent=1))
    _write(file, (text + "\n").encode(), "--json")


def _write(path: Path, content: bytes, option: str) -> None:
    try:
        storage.atomic_write(path, content)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror})") from None
