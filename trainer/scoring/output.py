"""Where a score goes: terminal, TensorBoard, pictures, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.errors import ConfigError
from trainer.output import evaluated
from trainer.rundir import EVALUATION
from trainer.scoring import board, plots, table
from trainer.scoring.report import Report, as_json
from trainer.storage import Location
from trainer.summaries import figures


@dataclass(frozen=True)
class Output:
    """``run`` is what is read, ``place`` what a person calls it: the same, or a run in a bucket.

    ``beside``: what is added to the names of what is written where not the run's own test split is scored.
    """

    run: Path
    place: Location
    json_file: Path | None
    plot_folder: Path | None
    beside: str = ""

    def check(self) -> None:
        """Before anything is computed. Raises ConfigError where a file could not be written."""
        for option, folder in (("--json", self.json_file and self.json_file.parent), ("--plots", self.plot_folder)):
            if folder is not None:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise ConfigError(f"{option} {folder}: cannot be made ({error.strerror})") from None
        if self.json_file is not None and self.json_file.is_dir():
            raise ConfigError(f"--json {self.json_file}: is a folder; name a file")

    def tell(self, report: Report, say: Callable[[str], None]) -> None:
        """Says one report and draws it.

        Raises:
            ConfigError: a file cannot be written. InterruptedRun: the disk is full. StorageError, StorageRefused.
        """
        say(f"\n{table.title(report)}")
        for line in table.lines(report):
            say(line)
        say("")
        name = report.subject.test + self.beside
        if self.plot_folder is not None and report.confusion:
            for what, drawn in plots.PLOTS.items():
                path = self.plot_folder / f"{name}-{what}.png"
                _write(path, figures.png(drawn(report)), "--plots")
                say(f"{what + ':':{table.KEY}}{path}")
        try:
            written: Location = board.write(self.run, name, report)
        except OSError as error:
            raise ConfigError(f"{self.run / EVALUATION}: cannot be written ({error.strerror})") from None
        if storage.is_cloud(self.place):
            written = evaluated.store(str(self.place), name, Path(written))
        say(f"{'TensorBoard:':{table.KEY}}{written}")

    def write_json(self, reports: Sequence[Report]) -> None:
        """Of one test set its values, of several each by its name. Raises ConfigError."""
        if self.json_file is not None:
            trees: dict[str, Any] = {report.subject.test: as_json(report) for report in reports}
            tree = next(iter(trees.values())) if len(trees) == 1 else {"tests": trees}
            text = re.sub(r"\[[\d\s,]+\]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(tree, indent=1))
            _write(self.json_file, (text + "\n").encode(), "--json")


def beside(data: str | None, split: str | None) -> str:
    """For names of what is made of another data set or split than the run's."""
    parts = [data and data.rstrip("/").rpartition("/")[2], split]
    return "".join(f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', part)}" for part in parts if part)


def _write(path: Path, content: bytes, option: str) -> None:
    try:
        storage.atomic_write(path, content)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror})") from None
