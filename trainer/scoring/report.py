"""From counts to what people read. Without TensorFlow.

Axes: J classes, K bins of confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.intervals import wilson

if TYPE_CHECKING:
    from trainer.scoring.counts import Counts

CONFUSIONS = 10
"""Pairs of classes that are named."""


@dataclass(frozen=True)
class ClassScore:
    name: str
    records: int  # that hold the class
    recall: float | None  # share of these in which it was found; None: there are none
    precision: float | None  # share of the records in which it was found that hold it; None: it was never found


@dataclass(frozen=True)
class Confusion:
    """Records of one class that were taken for another."""

    right: str
    found: str
    records: int


@dataclass(frozen=True)
class Bin:
    """Records whose confidence lies in low..high."""

    low: float
    high: float
    records: int
    accuracy: float | None
    confidence: float | None  # mean


@dataclass(frozen=True)
class Report:
    """A checkpoint on one test set. Of pairs (``objects`` 2) a record counts where both classes are found."""

    test: str
    objects: int
    records: int
    accuracy: float
    low: float
    high: float
    top5: float | None  # None: of pairs, or where there are five classes or fewer
    loss: float
    terms: dict[str, float]
    calibration_error: float | None
    bins: tuple[Bin, ...]
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    confusion: tuple[tuple[int, ...], ...]


def report(test: str, counts: Counts, names: tuple[str, ...], objects: int) -> Report:
    records = round(counts.records)
    accuracy = counts.correct / max(counts.records, 1.0)
    terms = {name: total / max(counts.records, 1.0) for name, total in counts.terms.items()}
    single = objects == 1
    return Report(
        test=test,
        objects=objects,
        records=records,
        accuracy=accuracy,
        **dict(zip(("low", "high"), wilson(accuracy, max(records, 1)), strict=True)),
        top5=counts.top / counts.records if single and len(names) > 5 else None,
        loss=sum(terms.values()),
        terms=terms,
        calibration_error=calibration_error(counts) if single else None,
        bins=_bins(counts),
        classes=tuple(
            ClassScore(name, round(present), _share(hit, present), _share(hit, found))
            for name, present, found, hit in zip(names, counts.present_J, counts.found_J, counts.hit_J, strict=True)
        ),
        confusions=_confusions(counts, names),
        confusion=tuple(tuple(int(value) for value in row) for row in counts.confusion_JJ),
    )


def calibration_error(counts: Counts) -> float:
    """ECE = sum_k n_k / n |accuracy_k - confidence_k| (Guo et al. 2017, equation 3)."""
    return float(np.sum(np.abs(counts.bin_correct_K - counts.bin_confidence_K)) / max(counts.records, 1.0))


def as_json(found: Report) -> dict[str, Any]:
    """Plain values, as JSON has them."""

    def plain(value: Any) -> Any:
        if hasattr(value, "__dataclass_fields__"):
            return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return value

    return {name: plain(value) for name, value in vars(found).items() if name != "terms"} | found.terms


def _bins(counts: Counts) -> tuple[Bin, ...]:
    total = len(counts.bin_records_K)
    rows = zip(counts.bin_records_K, counts.bin_correct_K, counts.bin_confidence_K, strict=True)
    return tuple(
        Bin(k / total, (k + 1) / total, round(records), _share(correct, records), _share(sure, records))
        for k, (records, correct, sure) in enumerate(rows)
    )


def _confusions(counts: Counts, names: tuple[str, ...]) -> tuple[Confusion, ...]:
    wrong_JJ = counts.confusion_JJ - np.diag(np.diag(counts.confusion_JJ))
    order = np.argsort(-wrong_JJ, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [np.unravel_index(place, wrong_JJ.shape) for place in order]
    return tuple(Confusion(names[i], names[j], int(wrong_JJ[i, j])) for i, j in pairs if wrong_JJ[i, j] > 0)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
