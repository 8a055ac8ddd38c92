"""Intervals of accuracies, 95 %."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A share with its interval, all within 0 and 1. ``kind``: by which rule."""

    mean: float
    low: float
    high: float
    kind: Literal["t", "wilson"]


def interval(shares: Sequence[float], records: int) -> Interval:
    """Of the mean over seeds a t interval; of one seed the Wilson interval of a share of so many records.

    The one says how far other seeds would fall, on the same test set; the other how far other test records would, with
    the same network.
    """
    if len(shares) == 1:
        return Interval(shares[0], *wilson(shares[0], records), "wilson")
    mean, half = statistics.mean(shares), t_half_width(shares)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), "t")


def t_half_width(values: Sequence[float]) -> float:
    """t_(n-1) s / sqrt(n) (Student 1908), s with n - 1."""
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def wilson(share: float, records: int) -> tuple[float, float]:
    """(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927)."""
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z * z / (2 * records)
    half = z * math.sqrt(share * (1 - share) / records + z * z / (4 * records * records))
    whole = 1 + z * z / records
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)
