"""Calibration and confusion as pictures.

Axes: H W picture, C channels, J classes, K bins of confidence.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from trainer.intervals import wilson
from trainer.scoring.report import Report

NAMED = 30
"""With more classes their names find no place beside the confusion matrix."""
NUMBERED = 15
"""With more classes numbers find no place in it."""
NAME = 22
DPI = 100
BLUE, GREY = "#0072b2", "#666666"
FEW_SHADES, MANY_SHADES = 0.5, 0.3  # exponents: small shares are to be seen, the more so where a cell is a pixel
DARK = 0.45  # a share on which text is white


def calibration(found: Report) -> Figure:
    """Accuracy over confidence with its 95 % interval, and how many records have which; the diagonal is perfect."""
    figure = Figure(figsize=(5.5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    seen = [each for each in found.bins if each.records]
    left, width = [each.low for each in seen], 1 / len(found.bins)
    shares = np.array([each.accuracy for each in seen])
    sure = [each.confidence for each in seen]
    ends = np.array([wilson(share, each.records) for share, each in zip(shares, seen, strict=True)]).reshape(-1, 2)
    reach = np.abs(ends.T - shares)  # rounding may put an end on the wrong side of 0 or 1
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
    counts_JJ = np.array(found.confusion, dtype=float)
    share_JJ = counts_JJ / np.maximum(counts_JJ.sum(axis=1, keepdims=True), 1)
    classes = len(share_JJ)
    side = float(np.clip(0.45 * classes, 5, 12)) if classes <= NAMED else 11.0
    figure = Figure(figsize=(side + 1.5, side + 0.5), layout="constrained")
    axes = figure.subplots()
    exponent = FEW_SHADES if classes <= NAMED else MANY_SHADES
    shown = axes.imshow(share_JJ, norm=PowerNorm(exponent, 0, 1), cmap="Blues")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, aspect=40, label="share of the right class")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], labels=["0", ".01", ".05", ".1", ".25", ".5", "1"])
    axes.set(xlabel="found; numbers are % of the right class" if classes <= NUMBERED else "found", ylabel="right")
    axes.set_title(f"{heading(found)}\naccuracy {100 * found.accuracy:.2f} %", fontsize=10)
    if classes > NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        return figure
    names = [_short(each.name) for each in found.classes]
    axes.set_xticks(range(classes), names, rotation=90)
    axes.set_yticks(range(classes), names)
    for row, column in np.argwhere(counts_JJ) if classes <= NUMBERED else ():
        percent = 100 * share_JJ[row, column]
        axes.text(
            column,
            row,
            f"{percent:.0f}" if percent >= 1 else f"{percent:.1f}".lstrip("0"),
            ha="center",
            va="center",
            color="white" if share_JJ[row, column] > DARK else "black",
            fontsize=8,
        )
    return figure


PLOTS: dict[str, Callable[[Report], Figure]] = {"calibration": calibration, "confusion": confusion}


def heading(found: Report) -> str:
    subject = found.subject
    kind = {"test": "", "affine": " under affine maps", "overlap": " in pairs"}[subject.test]
    return f"{subject.data}, {found.records:,} records of {subject.split}{kind}, step {subject.step}"


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 2] + ".."


def png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(png(figure))) as image:
        return np.asarray(image.convert("RGB"))
