"""What a study found, from its records alone: for each arm and axis how far it goes, and what stops it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.intervals import t_quantile
from trainer.probe.records import COLLAPSED, ERROR, KILLED, MEMORY, NOT_FINITE, OK, TIME, Result
from trainer.probe.study import CENTRE, Axis, Cell, Measure, Study, centre_of, classes_of

MEASURED = (OK, COLLAPSED)
NOISY = 1.25
"""Times the median of the reference product: a cell that met a slower machine."""
STOPS = {
    MEMORY: "memory",
    TIME: "time",
    NOT_FINITE: "numbers that are not finite",
    COLLAPSED: "collapse: class capsules near 0",
    KILLED: "killed",
}
COMPARED: Mapping[Measure, tuple[str, ...]] = {
    "cost": ("step_ratio",),
    "learning": ("accuracy_gap", "entropy", "gradient_ratio"),
    "ranks": (),
    "streaming": ("input_ratio",),
}
"""Thresholds that a study of a measure declares, beyond what ends a cell."""
NOT_MEASURED, FAILED = "not measured", "ended in error"
ONE_SEED, NO_CONTROL = "cannot be judged (one seed)", "cannot be judged (no control there)"
BOTH_FAIL = "cannot be judged (the control fails there too)"
FAILING = 0.1
"""Of what the control has above chance at the centre."""
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
Found = Sequence[tuple[Cell, Result]]


@dataclass(frozen=True)
class Point:
    """Results of all seeds at one value of an axis. ``chance``: accuracy of a guess, where accuracy is measured."""

    value: str
    results: tuple[Result, ...]
    chance: float = math.nan

    @property
    def skill(self) -> float:
        """Accuracy above chance, of what is to be had above it."""
        return (self.mean("accuracy") - self.chance) / (1 - self.chance)

    def mean(self, name: str) -> float:
        """Over the seeds that have the number; not a number where none has."""
        values = [each.numbers[name] for each in self.results if name in each.numbers and each.outcome in MEASURED]
        return float(np.mean(values)) if values else math.nan

    def standard_error(self, name: str) -> float:
        values = [each.numbers[name] for each in self.results if name in each.numbers and each.outcome in MEASURED]
        return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Limit:
    """``reached``: the last value before the limit that was judged, '' for none; ``stopped_at``: the first that crosses
    one, '' where none does; ``by``: which it crosses, in words; ``open``: values before it of which nothing or not all
    is known, each with why."""

    arm: str
    axis: str
    reached: str
    stopped_at: str
    by: str
    open: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """Of what the limit is: the word before the numbers of the first threshold that is crossed."""
        return self.by.split(":")[0]

    @property
    def sentence(self) -> str:
        told = []
        if self.stopped_at:
            within = f", {self.reached} is within every threshold" if self.reached else self.smallest
            told.append(f"{self.by} at {self.stopped_at}{within}")
        elif self.reached:
            told.append(f"no limit reached up to {self.reached}")
        elif not self.open:
            told.append(NOT_MEASURED)
        return f"{self.arm}, {self.axis}: {'; '.join([*told, *self.unknown])}"

    @property
    def smallest(self) -> str:
        """That a limit is at the first value, in words; '' where it is not, or not known."""
        return "" if self.reached or self.open else ", the smallest value that was tried"

    @property
    def unknown(self) -> list[str]:
        """Values that say nothing, in words: a reason, and where it holds."""
        whys = dict.fromkeys(why for _, why in self.open)
        return [f"{why} at {' · '.join(value for value, said in self.open if said == why)}" for why in whys]


@dataclass(frozen=True)
class Fit:
    """y ~ x**exponent, with the half width of its 95 % interval; ``worst``: the largest relative residual; ``last``:
    the exponent between the last two points, where fixed costs weigh least."""

    exponent: float
    half_width: float
    worst: float
    points: int
    last: float


def at_one_speed(found: Found) -> list[tuple[Cell, Result]]:
    """Times as if every cell had met the same machine, by the reference product that was timed beside each.

    On a machine that others use a minute may be half as fast as the next.
    """
    references = [r.numbers["reference_seconds"] for _, r in found if "reference_seconds" in r.numbers]
    if not references:
        return list(found)
    middle = float(np.median(references))

    def told(result: Result) -> Result:
        factor = middle / result.numbers.get("reference_seconds", middle)
        scaled = {k: v * factor if k.endswith("_seconds") else v for k, v in result.numbers.items()}
        return replace(result, numbers=scaled)

    return [(cell, told(result)) for cell, result in found]


def noisy(found: Found) -> list[Cell]:
    """Cells whose times say more of what else ran than of themselves: scaling them is rough, measuring again better."""
    references = [(cell, r.numbers["reference_seconds"]) for cell, r in found if "reference_seconds" in r.numbers]
    if not references:
        return []
    middle = float(np.median([seconds for _, seconds in references]))
    return [cell for cell, seconds in references if seconds > NOISY * middle]


def curve(study: Study, found: Found, arm: str, axis: Axis) -> list[Point]:
    """Points of an arm along an axis, in the order of its values; the centre stands at its own value, and at every
    value for an arm that the axis is not varied for."""
    middle, fixed = centre_of(study, axis), not varied(axis, arm)

    def at(value: str) -> Point:
        here = [
            (cell, result)
            for cell, result in found
            if cell.arm == arm
            and ((cell.axis, cell.value) == (axis.name, value) or (cell.axis == CENTRE and (fixed or value == middle)))
        ]
        scored = [cell for cell, result in here if "accuracy" in result.numbers]
        chance = 1 / classes_of(study, scored[0]) if scored else math.nan
        return Point(value, tuple(result for _, result in here), chance)

    return [at(value) for value in axis.values]


def varied(axis: Axis, arm: str) -> bool:
    return not axis.arms or arm in axis.arms


def controls_for(study: Study, arm: str, axis: Axis) -> list[str]:
    """Controls but the arm itself: those that are varied along the axis, where there are such."""
    others = [each.name for each in study.arms if each.control and each.name != arm]
    return [name for name in others if varied(axis, name)] or others


def beside(study: Study, found: Found, arm: str, axis: Axis) -> dict[str, Point]:
    """What an arm is compared with at each value: the control of the best accuracy there, as a control that has died
    says nothing; of passes, which have none, the first control."""
    curves = [curve(study, found, name, axis) for name in controls_for(study, arm, axis)]
    best = {}
    for at, value in enumerate(axis.values if curves else ()):
        points = [points[at] for points in curves]
        scored = [point for point in points if math.isfinite(point.mean("accuracy"))]
        best[value] = max(scored, key=lambda point: point.mean("accuracy")) if scored else points[0]
    return best


def limit(study: Study, found: Found, arm: str, axis: Axis) -> Limit:
    """The first tested value that crosses a threshold of the study."""
    controls = [each.name for each in study.arms if each.control]
    others, reached = beside(study, found, arm, axis), ""
    middle = others.get(centre_of(study, axis))
    least = FAILING * middle.skill if middle is not None else math.nan
    unknown: list[tuple[str, str]] = []
    for point in curve(study, found, arm, axis):
        by = crossed(study, point, others.get(point.value), control=arm in controls)
        if by:
            return Limit(arm, axis.name, reached, point.value, "; ".join(by), tuple(unknown))
        why = _unknown(study, point, others.get(point.value), least)
        unknown += [(point.value, why)] if why else []
        if why not in (NOT_MEASURED, FAILED, ONE_SEED, NO_CONTROL, BOTH_FAIL):
            reached = point.value
    if [why for _, why in unknown] == [NOT_MEASURED] * len(axis.values):
        unknown = []
    return Limit(arm, axis.name, reached, "", "", tuple(unknown))


def _unknown(study: Study, point: Point, other: Point | None, least: float) -> str:
    """Why a point that crosses nothing may not be within every threshold; '' where it is.

    Args:
        least: skill below which a point and its control say nothing of each other.
    """
    outcomes = [result.outcome for result in point.results]
    if OK not in outcomes:
        return FAILED if ERROR in outcomes else NOT_MEASURED
    declared = COMPARED[study.measure]
    for name, rule in (("accuracy", "accuracy_gap"), ("step_seconds", "step_ratio")):
        if rule in declared and other is not None and math.isnan(other.mean(name)) and math.isfinite(point.mean(name)):
            return NO_CONTROL
    if other is not None and "accuracy_gap" in declared:
        gap, errors = gap_of(point, other)
        if gap > study.thresholds.accuracy_gap and math.isnan(errors):
            return ONE_SEED
        if max(point.skill, other.skill) < least:
            return BOTH_FAIL
    lacking = [outcome for outcome in outcomes if outcome != OK]
    why = FAILED if ERROR in lacking else NOT_MEASURED
    return f"{len(lacking)} of {len(outcomes)} seeds {why}" if lacking else ""


def gap_of(point: Point, other: Point) -> tuple[float, float]:
    """Points of accuracy below another, and the standard error of that; not a number where one has a single seed."""
    errors = math.hypot(other.standard_error("accuracy"), point.standard_error("accuracy"))
    return 100 * (other.mean("accuracy") - point.mean("accuracy")), 100 * errors


def crossed(study: Study, point: Point, other: Point | None, *, control: bool) -> list[str]:
    """Every declared threshold that a point crosses, in words: what ends a cell first, then what it says.

    ``other``: what it is compared with, None for nothing.
    """
    ended = [STOPS[result.outcome] for result in point.results if result.outcome in STOPS]
    if ended:
        return list(dict.fromkeys(ended))
    rules, declared = study.thresholds, COMPARED[study.measure]
    found: dict[str, str] = {}
    if other is not None:
        ratio = _over(point.mean("step_seconds"), other.mean("step_seconds"))
        if ratio > rules.step_ratio:
            found["step_ratio"] = f"time: {ratio:.1f} times the control's step"
        gap, errors = gap_of(point, other)
        if gap > rules.accuracy_gap and gap > 2 * errors:
            found["accuracy_gap"] = f"accuracy: {gap:.1f} points below the control"
        share = _over(point.mean("gradient_stem_last"), other.mean("gradient_stem_last"))
        if share < rules.gradient_ratio or share > 1 / rules.gradient_ratio:
            found["gradient_ratio"] = f"gradients: {share:.1g} times the control's at the first convolution"
    input_ratio = point.mean("ratio")
    if input_ratio < rules.input_ratio:
        found["input_ratio"] = f"input: {input_ratio:.2f} of the speed from disk"
    entropy = point.mean("entropy_last")
    if entropy > rules.entropy and not control:
        found["entropy"] = f"routing: couplings of entropy {entropy:.5f} of that of uniform ones"
    return [told for rule, told in found.items() if rule in declared]


def _over(mine: float, other: float) -> float:
    """Not a number where neither is anything, infinite where only the other is nothing."""
    return mine / other if other else math.inf if mine > 0 else math.nan


def fit(xs: Sequence[float], ys: Sequence[float]) -> Fit | None:
    """A power law by least squares of the logarithms; None for fewer than three points."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if x > 0 and y > 0 and math.isfinite(y)]
    if len(pairs) < 3:
        return None
    log_x, log_y = np.log(np.array(pairs, dtype=np.float64)).T
    design = np.stack([log_x, np.ones_like(log_x)], axis=1)
    solution, *_ = np.linalg.lstsq(design, log_y, rcond=None)
    residuals = log_y - design @ solution
    freedom = len(pairs) - 2
    variance = float(residuals @ residuals) / freedom
    error = math.sqrt(variance / float(((log_x - log_x.mean()) ** 2).sum()))
    worst = float(np.abs(np.expm1(residuals)).max())
    last = float((log_y[-1] - log_y[-2]) / (log_x[-1] - log_x[-2]))
    return Fit(float(solution[0]), t_quantile(freedom) * error, worst, len(pairs), last)


def number(value: str) -> float:
    """That an axis value begins with, as 16 of '16 x 8', in bytes where it has their unit; not a number for a word."""
    match = re.match(r"([\d.]+)([KMG]iB\b)?", value)
    return float(match[1]) * UNITS.get(match[2], 1) if match else math.nan
