"""A report in TensorBoard, as a run beside the training's: RUN/evaluation/NAME, written anew each time.

In a folder of its own, so that it neither stands in the way of a training that goes on or is taken back, nor is lost
with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer import eventfiles
from trainer.rundir import EVALUATION
from trainer.scoring import plots, table
from trainer.scoring.report import Report
from trainer.summaries import figures, values
from trainer.summaries.tags import Tag

PICTURES = {
    "calibration": Tag("evaluation/calibration", "Accuracy over confidence; on the diagonal it is as sure as right."),
    "confusion": Tag("evaluation/confusion", "Rows: the right class; columns: what was found; shares of a row."),
}


def write(run: Path, name: str, found: Report) -> Path:
    """Replaces what an earlier evaluation of that name left.

    Raises:
        OSError: the folder cannot be written. InterruptedRun: the disk is full.
    """
    folder = run / EVALUATION / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in eventfiles.paths(folder):
        old.unlink()
    file = eventfiles.EventFile(folder)
    file.write(found.subject.step, _values(found))
    file.close()
    return folder


def _values(found: Report) -> list[Any]:
    interval = "of the 95 % interval (Wilson 1927) of evaluation/accuracy."
    scalars: list[tuple[str, float | None, str]] = [
        ("accuracy", found.accuracy, f"Of {plots.heading(found)}."),
        ("accuracy_low", found.low, f"Lower end {interval}"),
        ("accuracy_high", found.high, f"Upper end {interval}"),
        ("top5", found.top5, "Share of records whose class is among the five most active."),
        ("loss", found.loss, "Mean loss over the records."),
        ("lead", found.lead, "Mean of the right class's score less the best of the others."),
        ("calibration_error", found.calibration_error, f"Mean gap, over {table.calibrated(found)}."),
    ]
    written = [
        value
        for name, number, description in scalars
        if number is not None
        for value in values.scalar(Tag(f"evaluation/{name}", description), number)
    ]
    text = "\n".join(f"    {line}" for line in [table.title(found), *table.lines(found)])  # Markdown keeps it as it is
    written.append(values.text(Tag("evaluation/report", "The score in full."), text))
    if found.confusion:
        written += [values.image(tag, figures.pixels(plots.PLOTS[name](found))) for name, tag in PICTURES.items()]
    return written
