"""The CSV: a row for each image. Without TensorFlow.

Axes: J classes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

_ORDINALS = ("second", "third", "fourth", "fifth", *(f"{place}th" for place in range(6, 21)))
PLACES = (("label", "score"), *((place, f"{place}_score") for place in _ORDINALS))
"""Columns of the most active class and its score, of the second, and so on."""


@dataclass(frozen=True)
class Table:
    """``top`` classes of each image with their scores, the largest first; ``scores``: a column for each class too."""

    classes: Sequence[str]
    top: int
    scores: bool

    def head(self) -> list[str]:
        places = [column for place in PLACES[: self.top] for column in place]
        return ["file", *places, "error", *(self.classes if self.scores else [])]

    def row(self, file: str, scores_J: NDArray[np.float32]) -> list[str]:
        best = [cell for found in self.best(scores_J, self.top) for cell in found]
        return [file, *best, "", *(map(shown, scores_J) if self.scores else [])]

    def best(self, scores_J: NDArray[np.float32], count: int) -> list[tuple[str, str]]:
        """(class, score) of the largest scores; of equal ones the first, as an argmax has it."""
        order_J = np.argsort(-scores_J, kind="stable")
        return [(self.classes[label], shown(scores_J[label])) for label in order_J[:count]]

    def error(self, file: str, why: str) -> list[str]:
        return [file, *[""] * (2 * self.top), why, *[""] * (len(self.classes) if self.scores else 0)]


def shown(score: np.float32) -> str:
    """All that a float32 holds, in the fewest digits."""
    return str(np.float32(score))


def write(stream: TextIO, rows: Sequence[Sequence[str]]) -> None:
    """With the operating system when it returns."""
    csv.writer(stream, lineterminator="\n").writerows(rows)
    stream.flush()
