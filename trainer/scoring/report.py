"""From counts to what people read. Without TensorFlow.

Axes: J classes, K bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import LossConfig
from trainer.intervals import wilson

if TYPE_CHECKING:
    from trainer.scoring.counts import Counts

CONFUSIONS = 10
"""Pairs of classes that are named."""
CONFIDENCE = {
    "cross_entropy": "the largest of softmax({scale:g} x score)",
    "nll": "the largest score's share of their sum",
    "margin": "the largest class score, a length or activation",
    "spread": "the largest class score, a length or activation",
}
"""What ``counts.confidence`` takes for the probability of a class, by the kind of loss."""


@dataclass(frozen=True)
class ClassScore:
    name: str
    records: int  # that hold the class
    recall: float | None  # share of these in which it was found; None: there are none
    precision: float | None  # share of the records in which it was found that hold it; None: it was never found


@dataclass(frozen=True)
class Confusion:
    """So many ``records`` of the ``of`` that hold one class were taken for another."""

    right: str
    found: str
    records: int
    of: int


@dataclass(frozen=True)
class Bin:
    """Records whose confidence lies in low..high."""

    low: float
    high: float
    records: int
    accuracy: float | None
    confidence: float | None  # mean


@dataclass(frozen=True)
class Subject:
    """What was scored: the checkpoint of a step on a test set of ``run.TESTS``, made of a split of a data set."""

    test: str
    data: str
    split: str
    step: int
    objects: int  # in an image; of several a record counts where all are found
    confidence: str  # what it is


@dataclass(frozen=True)
class Report:
    subject: Subject
    records: int
    accuracy: float
    low: float
    high: float
    top5: float | None  # None: of pairs, or where there are five classes or fewer
    loss: float
    terms: dict[str, float]
    calibration_error: float | None  # None: of pairs
    lead: float | None  # mean of the right class's score less the best of the others; None: of pairs
    bins: tuple[Bin, ...]
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows: the right class; columns: the one that was found


def report(subject: Subject, counts: Counts, values: Sequence[str], names: Sequence[str]) -> Report:
    """
    Args:
        values: names of ``counts.values_V`` behind the number of records: accuracy, perhaps top5, terms of the loss.
        names: of the classes.
    """
    records, *sums = counts.values_V.tolist()
    means = {name: total / max(records, 1.0) for name, total in zip(values, sums, strict=True)}
    accuracy, top5 = means.pop("accuracy"), means.pop("top5", None)
    low, high = wilson(accuracy, max(round(records), 1))
    return Report(
        subject=subject,
        records=round(records),
        accuracy=accuracy,
        low=low,
        high=high,
        top5=top5,
        loss=sum(means.values()),
        terms=means,
        calibration_error=calibration_error(counts) if subject.objects == 1 else None,
        lead=float(counts.lead_1[0]) / max(records, 1.0) if subject.objects == 1 else None,
        bins=_bins(counts),
        classes=_classes(counts, names),
        confusions=_confusions(counts, names),
        confusion=tuple(map(tuple, counts.confusion_JJ.tolist())),
    )


def confidence_is(loss: LossConfig) -> str:
    return CONFIDENCE[loss.kind].format(scale=loss.scale)


def calibration_error(counts: Counts) -> float:
    """ECE = sum_k n_k / n |accuracy_k - confidence_k| (Guo et al. 2017, equation 3)."""
    gaps_K = np.abs(counts.bin_correct_K - counts.bin_confidence_K)
    return float(np.sum(gaps_K)) / max(int(counts.bin_records_K.sum()), 1)


def as_json(found: Report) -> dict[str, Any]:
    """Plain values, as JSON has them, in one level."""
    tree = asdict(found)
    return {**tree.pop("subject"), **{name: value for name, value in tree.items() if name != "terms"}, **found.terms}


def _classes(counts: Counts, names: Sequence[str]) -> tuple[ClassScore, ...]:
    rows = zip(names, counts.present_J.tolist(), counts.found_J.tolist(), counts.hit_J.tolist(), strict=True)
    return tuple(ClassScore(name, held, _share(hit, held), _share(hit, found)) for name, held, found, hit in rows)


def _bins(counts: Counts) -> tuple[Bin, ...]:
    total = len(counts.bin_records_K)
    rows = zip(counts.bin_records_K.tolist(), counts.bin_correct_K.tolist(), counts.bin_confidence_K, strict=True)
    return tuple(
        Bin(k / total, (k + 1) / total, records, _share(correct, records), _share(sure, records))
        for k, (records, correct, sure) in enumerate(rows)
    )


def _confusions(counts: Counts, names: Sequence[str]) -> tuple[Confusion, ...]:
    wrong_JJ = counts.confusion_JJ - np.diag(np.diag(counts.confusion_JJ))
    order = np.argsort(-wrong_JJ, axis=None, kind="stable")[:CONFUSIONS].tolist()
    places = [divmod(place, len(names)) for place in order]
    return tuple(
        Confusion(names[i], names[j], int(wrong_JJ[i, j]), int(counts.present_J[i]))
        for i, j in places
        if wrong_JJ[i, j] > 0
    )


def _share(part: float, whole: int) -> float | None:
    return float(part / whole) if whole else None
