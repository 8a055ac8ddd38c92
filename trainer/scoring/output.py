"""Where a score goes: terminal, JSON, pictures, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.errors import ConfigError
from trainer.scoring import board, plots, table
from trainer.scoring.report import Report, as_json
from trainer.scoring.run import Scored


def tell(
    run: Path,
    step: int,
    scored: Sequence[Scored],
    json_file: Path | None,
    plot_folder: Path | None,
    say: Callable[[str], None],
) -> None:
    """Says all reports, and writes them.

    Raises:
        ConfigError: a file cannot be written. InterruptedRun: the disk is full.
    """
    for report, config in scored:
        if len(scored) > 1:
            say(f"\n== {report.test}")
        for line in table.lines(report, config.loss):
            say(line)
        written = board.write(run, report, config.loss, step)
        say(f"\nTensorBoard: {written}")
        if plot_folder is not None:
            _draw(plot_folder, report, say)
    if json_file is not None:
        _write(json_file, (json.dumps(_plain(step, scored), indent=2) + "\n").encode(), "--json")


def _plain(step: int, scored: Sequence[Scored]) -> dict[str, Any]:
    """Of one test set its values; of several by the name of each."""
    if len(scored) == 1:
        return {"step": step, **as_json(scored[0].report)}
    return {"step": step, "tests": {report.test: as_json(report) for report, _ in scored}}


def _draw(folder: Path, report: Report, say: Callable[[str], None]) -> None:
    if report.objects > 1:
        return
    for name, figure in (("calibration", plots.calibration), ("confusion", plots.confusion)):
        path = folder / f"{report.test}-{name}.png"
        _write(path, plots.png(figure(report)), "--plots")
        say(f"{name}: {path}")


def _write(path: Path, content: bytes, option: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.atomic_write(path, content)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror})") from None
