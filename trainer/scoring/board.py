"""A report in TensorBoard, as a run beside the training's: RUN/evaluation/TEST, written anew each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer import eventfiles
from trainer.config import LossConfig
from trainer.scoring import plots, table
from trainer.scoring.report import Report
from trainer.summaries import values
from trainer.summaries.tags import Tag

FOLDER = "evaluation"


def write(run: Path, found: Report, loss: LossConfig, step: int) -> Path:
    """Replaces what an earlier evaluation on the same test set left. Raises InterruptedRun where the disk is full."""
    folder = run / FOLDER / found.test
    folder.mkdir(parents=True, exist_ok=True)
    for old in eventfiles.paths(folder):
        old.unlink()
    file = eventfiles.EventFile(folder)
    file.write(step, _values(found, loss))
    file.close()
    return folder


def _values(found: Report, loss: LossConfig) -> list[Any]:
    interval = f"{100 * found.low:.2f} to {100 * found.high:.2f} % with 95 % confidence (Wilson 1927)."
    scalars: list[tuple[Tag, float | None]] = [
        (Tag("evaluation/accuracy", f"Of {found.records} test records; {interval}"), found.accuracy),
        (Tag("evaluation/top5", "Share of records whose class is among the five most active."), found.top5),
        (Tag("evaluation/loss", "Mean loss over the test records."), found.loss),
        (
            Tag(
                "evaluation/calibration_error",
                f"Mean distance of accuracy and confidence over bins of confidence, which is {table.meaning(loss)}.",
            ),
            found.calibration_error,
        ),
    ]
    written = [value for tag, number in scalars if number is not None for value in values.scalar(tag, number)]
    text = "\n".join(f"    {line}" for line in table.lines(found, loss))  # indented: Markdown keeps it as it is
    written.append(values.text(Tag("evaluation/report", "The score in full."), text))
    if found.objects == 1:
        for tag, figure in (
            (Tag("evaluation/calibration", "Accuracy over confidence; the diagonal is perfect."), plots.calibration),
            (Tag("evaluation/confusion", "Rows: the right class; columns: what was found."), plots.confusion),
        ):
            written.append(values.image(tag, plots.pixels(figure(found))))
    return written
