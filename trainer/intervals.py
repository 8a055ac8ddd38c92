"""Intervals of accuracies, 95 %."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A share, or a difference of shares, with its interval. ``kind``: by which rule."""

    mean: float
    low: float
    high: float
    kind: Literal["t", "wilson", "paired t"]


def interval(shares: Sequence[float], records: int) -> Interval:
    """Of the mean over seeds a t interval; of one seed the Wilson interval of a share of so many records.

    The one says how far other seeds would fall, on the same test set; the other how far other test records would, with
    the same network.
    """
    if len(shares) == 1:
        return Interval(shares[0], *wilson(shares[0], records), "wilson")
    mean, half = statistics.mean(shares), t_half_width(shares)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), "t")


def paired(differences: Sequence[float]) -> Interval | None:
    """t interval of the mean difference between two arms, seed by seed; None of fewer than two seeds.

    Runs of one seed see the same batches, and what these do to both is left out of their difference.
    """
    if len(differences) < 2:
        return None
    mean, half = statistics.mean(differences), t_half_width(differences)
    return Interval(mean, mean - half, mean + half, "paired t")


def t_half_width(values: Sequence[float]) -> float:
    """t_(n-1) s / sqrt(n) (Student 1908), s with n - 1."""
    return t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def t_quantile(freedom: int) -> float:
    """Within which CONFIDENCE of Student's t lies, on both sides of 0."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def wilson(share: float, records: int) -> tuple[float, float]:
    """(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927)."""
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z * z / (2 * records)
    half = z * math.sqrt(share * (1 - share) / records + z * z / (4 * records * records))
    whole = 1 + z * z / records
    # the share lies between them, which rounding forgets at 0 and 1
    return max(0.0, min(share, (middle - half) / whole)), min(1.0, max(share, (middle + half) / whole))
