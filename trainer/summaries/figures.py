"""The confusion matrix as a picture, and figures as PNG and pixels. Imported where something is drawn: Matplotlib
takes its time.

Axes: H W picture, C channels, J classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

NAMED = 30
"""With more classes their names find no place beside the confusion matrix."""
NUMBERED = 15
"""With more classes numbers find no place in it."""
NAME = 22
DPI = 100
FEW_SHADES, MANY_SHADES = 0.5, 0.3  # exponents: small shares are to be seen, the more so where a cell is a pixel
DARK = 0.45  # a share on which text is white


def confusion(counts_JJ: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Rows: the right class; columns: the one that was found; shares of a row."""
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
    axes.set_title(title, fontsize=10)
    if classes > NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        return figure
    short = [_short(name) for name in names]
    axes.set_xticks(range(classes), short, rotation=90)
    axes.set_yticks(range(classes), short)
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
