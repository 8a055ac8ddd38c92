"""Calibration and confusion as pictures.

Axes: H W picture, C channels, J classes, K bins of confidence.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from trainer.intervals import wilson
from trainer.scoring.report import Report
from trainer.summaries import figures

BLUE, GREY = "#0072b2", "#666666"


def calibration(found: Report) -> Figure:
    """Accuracy over confidence with its 95 % interval, and how many records have which; the diagonal is perfect."""
    figure = Figure(figsize=(5.5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    seen = [each for each in found.bins if each.records]
    left, width = [each.low for each in seen], 1 / len(found.bins)
    shares = np.array([each.accuracy for each in seen])
    sure = [each.confidence for each in seen]
    ends = np.array([wilson(share, each.records) for share, each in zip(shares, seen, strict=True)]).reshape(-1, 2)
    reach = np.abs(ends.T - shares)
    upper.bar(left, shares, width, align="edge", color=BLUE, alpha=0.35, edgecolor="white")
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect")
    upper.errorbar(sure, shares, reach, fmt="o", color="black", markersize=3, linewidth=1, label="95 % (Wilson)")
    upper.legend(loc="upper left", fontsize=8, frameon=False)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    error = 100 * (found.calibration_error or 0.0)
    figure.suptitle(f"{heading(found)}\nexpected calibration error {error:.2f} %", fontsize=10)
    lower.bar(left, [each.records for each in seen], width, align="edge", color=BLUE, edgecolor="white")
    lower.set_yscale("log")
    lower.set(ylabel="records", ylim=(0.7, None))
    lower.set_xlabel(textwrap.fill(f"confidence: {found.subject.confidence}", 60))
    return figure


def confusion(found: Report) -> Figure:
    """Rows: the right class; columns: the one that was found; shares of a row."""
    names = [each.name for each in found.classes]
    title = f"{heading(found)}\naccuracy {100 * found.accuracy:.2f} %"
    return figures.confusion(np.array(found.confusion, dtype=np.int64), names, title)


PLOTS: dict[str, Callable[[Report], Figure]] = {"calibration": calibration, "confusion": confusion}


def heading(found: Report) -> str:
    subject = found.subject
    kind = {"test": "", "affine": " under affine maps", "overlap": " in pairs"}[subject.test]
    return f"{subject.data}, {found.records:,} records of {subject.split}{kind}, step {subject.step}"
