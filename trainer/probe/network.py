"""Latency and bandwidth of allreduce over Horovod itself: measured, fitted, and what follows at another link speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.probe import records
from trainer.probe.link import bytes_per_second
from trainer.probe.scaling import Link, allreduce_seconds
from trainer.probe.together import run_ranks

LARGE = 2**20
"""Bytes from which on the link counts for more than latency."""
MODULE = "trainer.probe.allreduce"


@dataclass(frozen=True)
class Sample:
    """Of one message size: the slowest rank's seconds, median and quartiles over the rounds."""

    bytes: int
    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """T(b) = fixed + b / speed, by least squares of the relative errors; ``worst``: the largest of these."""

    fixed: float
    bytes_per_second: float
    worst: float


@dataclass(frozen=True)
class Measured:
    ranks: int
    rate: str
    rounds: int
    samples: tuple[Sample, ...]

    @property
    def line(self) -> Line:
        return fit(self.samples)

    @property
    def link(self) -> Link:
        """That the ring of the model would have: 2 (N - 1) / N of a message cross each link."""
        line = self.line
        crossing = 2 * (self.ranks - 1) / self.ranks
        return Link(0.0, crossing * line.bytes_per_second, ranks_per_machine=1, fixed=line.fixed)


def measure(ranks: int, rates: Sequence[str] = ()) -> list[Measured]:
    """Over a link of each rate, in turn; over what is there, where no rate is given.

    Raises:
        ConfigError: ranks cannot be started, or a rate not be imposed.
    """
    found = run_ranks(MODULE, ranks, *rates, private=bool(rates))
    return [
        Measured(ranks, run["rate"], found["rounds"], tuple(Sample(**each) for each in run["samples"]))
        for run in found["runs"]
    ]


def fit(samples: Sequence[Sample]) -> Line:
    """Large messages weigh no more than small ones: every size counts by its relative error."""
    sizes_M = np.array([each.bytes for each in samples], np.float64)
    times_M = np.array([each.seconds for each in samples], np.float64)
    design_M2 = np.stack([1 / times_M, sizes_M / times_M], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(design_M2, np.ones_like(times_M), rcond=None)
    fixed, slope = max(float(fixed), 0.0), max(float(slope), 1e-15)
    errors_M = (fixed + slope * sizes_M) / times_M - 1
    return Line(fixed, 1 / slope, float(np.abs(errors_M).max()))


def predicted(fitted: Measured, rate: str) -> list[float]:
    """Seconds of each message at another rate: the latency of the fit, and as large a share of the rate as there."""
    share = fitted.link.bytes_per_second / bytes_per_second(fitted.rate)
    link = Link(0.0, bytes_per_second(rate), ranks_per_machine=1, fixed=fitted.link.fixed)
    return [allreduce_seconds(each.bytes, fitted.ranks, link, share) for each in fitted.samples]


def errors(fitted: Measured, measured: Measured) -> list[float]:
    """Of each message, of the prediction from another rate's fit, relative to what was measured."""
    there = predicted(fitted, measured.rate)
    return [told / each.seconds - 1 for told, each in zip(there, measured.samples, strict=True)]


def error_line(fitted: Measured, measured: Measured) -> str:
    found = errors(fitted, measured)
    large = [error for error, each in zip(found, measured.samples, strict=True) if each.bytes >= LARGE]
    told = f"predicted from {fitted.rate}: off by {100 * np.median(np.abs(found)):.0f} % in the median"
    if not large:  # a slow link
        return told
    return f"{told}, by at most {100 * np.max(np.abs(large)):.0f} % from {LARGE // 2**20} MiB on"


def table(found: Measured) -> list[str]:
    """For a terminal."""
    where = f"over {found.rate}" if found.rate else "as ranks of this machine meet"
    lines = [
        f"allreduce of {found.ranks} ranks, {where}; {found.rounds} rounds",
        f"{'message':>10}{'ms':>12}{'quartiles':>26}",
    ]
    for each in found.samples:
        size = f"{each.bytes // 1024:,} KiB" if each.bytes < 2**20 else f"{each.bytes // 2**20} MiB"
        lines.append(f"{size:>10}{1e3 * each.seconds:>12.2f}{f'{1e3 * each.low:.2f} to {1e3 * each.high:.2f}':>26}")
    line = found.line
    lines.append(
        f"fit: {1e3 * line.fixed:.2f} ms + bytes / {line.bytes_per_second / 1e6:,.0f} MB/s, off by up to "
        f"{100 * line.worst:.0f} %"
    )
    lines.append(f"link of the ring: {8e-9 * found.link.bytes_per_second:.2f} Gbit/s")
    return lines


def from_json(content: Any) -> list[Measured]:
    """Raises KeyError, TypeError or ValueError where it is none."""
    return [
        Measured(each["ranks"], each["rate"], each["rounds"], tuple(Sample(**one) for one in each["samples"]))
        for each in content["runs"]
    ]


def as_json(runs: Sequence[Measured]) -> dict[str, Any]:
    return {
        "version": records.VERSION,
        "runs": [{**asdict(run), "fit": asdict(run.line)} for run in runs],
        "software": records.software(),
        "hardware": records.hardware(),
    }
