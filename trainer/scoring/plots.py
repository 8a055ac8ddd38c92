"""Calibration and confusion as pictures.

Axes: H W picture, C channels, J classes, K bins of confidence.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from trainer.scoring.report import Report

NAMED = 30
"""With more classes their names find no place beside the confusion matrix."""


def calibration(found: Report) -> Figure:
    """Accuracy over confidence, and how many records have which; on the diagonal a network is as good as it says."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    seen = [each for each in found.bins if each.records]
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    upper.bar(
        [each.low for each in found.bins],
        [each.accuracy or 0.0 for each in found.bins],
        width=1 / len(found.bins),
        align="edge",
        edgecolor="white",
    )
    upper.plot([each.confidence for each in seen], [each.accuracy for each in seen], "o", color="black", markersize=3)
    error = found.calibration_error or 0.0
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=f"{found.test}: calibration error {100 * error:.2f} %")
    lower.bar(
        [each.low for each in found.bins],
        [each.records for each in found.bins],
        width=1 / len(found.bins),
        align="edge",
        edgecolor="white",
    )
    lower.set(xlabel="confidence", ylabel="records")
    return figure


def confusion(found: Report) -> Figure:
    """Rows: the right class; columns: the one that was found; shares of a row."""
    counts_JJ = np.array(found.confusion, dtype=float)
    share_JJ = counts_JJ / np.maximum(counts_JJ.sum(axis=1, keepdims=True), 1)
    classes = len(share_JJ)
    side = float(np.clip(0.45 * classes, 5, 12)) if classes <= NAMED else 8.0
    figure = Figure(figsize=(side + 1.5, side + 0.5), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(share_JJ, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the right class")
    axes.set(xlabel="found", ylabel="right", title=f"{found.test}: accuracy {100 * found.accuracy:.2f} %")
    if classes <= NAMED:
        names = [each.name[:20] for each in found.classes]
        axes.set_xticks(range(classes), names, rotation=90)
        axes.set_yticks(range(classes), names)
        for row, column in np.ndindex(classes, classes) if classes <= NAMED // 2 else ():
            colour = "black" if share_JJ[row, column] > 0.6 else "white"
            text = f"{100 * share_JJ[row, column]:.0f}" if counts_JJ[row, column] else ""
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(png(figure))) as image:
        return np.asarray(image.convert("RGB"))
