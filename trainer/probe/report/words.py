"""What a study found, in sentences: from its limits alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.probe import limits
from trainer.probe.limits import Found, Limit, controls_for, varied
from trainer.probe.study import Axis, Study

SEPARATOR = " · "
"""Between names of arms, which may hold commas."""


def answer(study: Study, ends: Sequence[Limit]) -> str:
    """What comes first, and whether it comes for the controls too."""
    if not any(end.reached or end.stopped_at for end in ends):
        return "Nothing is measured yet."
    controls = {arm.name for arm in study.arms if arm.control}
    routed = [end for end in ends if end.arm not in controls and end.stopped_at]
    budget = f"On {study.hardware}, with {study.budget.memory_mib:,} MiB and {study.budget.seconds:g} s a cell"
    tried = sum(end.arm not in controls and bool(end.reached or end.stopped_at) for end in ends)
    if not routed:
        told = f"{budget}, no arm with routing reaches a limit on any axis ({tried} were tried)."
    else:
        kinds = [end.kind for end in routed]
        counted = sorted(dict.fromkeys(kinds), key=lambda kind: -kinds.count(kind))
        listed = ", ".join(f"{kind} {kinds.count(kind)}" for kind in counted)
        told = (
            f"{budget}, {len(routed)} of {tried} arms with routing on an axis reach a limit before its end; what comes "
            f"first there: {listed}."
        )
    there = [end for end in ends if end.arm in controls and end.stopped_at]
    here = sum(end.arm in controls and bool(end.reached or end.stopped_at) for end in ends)
    if not here:
        return told
    also = f"{len(there)} of {here} controls on an axis do" if there else f"None of {here} controls on an axis does"
    return f"{told} {also}{': ' + '; '.join(end.sentence for end in there) if there else ''}."


def of_axis(study: Study, axis: Axis, ends: Sequence[Limit]) -> str:
    """How far each arm goes on an axis, and what stops it, in one sentence."""
    mine = [end for end in ends if end.axis == axis.name]
    stopped = [end for end in mine if end.stopped_at]
    free = [end for end in mine if not end.stopped_at and end.reached]
    parts = [
        f"{end.arm} stops at {end.stopped_at} ({end.by})"
        + ("" if end.reached else ", the smallest value that was tried")
        for end in stopped
    ]
    for reached in dict.fromkeys(end.reached for end in free):
        names = SEPARATOR.join(end.arm for end in free if end.reached == reached)
        parts.append(f"not reached up to {reached}: {names}")
    missing = SEPARATOR.join(end.arm for end in mine if not end.stopped_at and not end.reached)
    parts += [f"not measured: {missing}"] if missing else []
    return "; ".join(parts)


def noise(found: Found) -> str:
    """Which times are rough; empty where none is."""
    slow = limits.noisy(found)
    if not slow:
        return ""
    return (
        f"{len(slow)} of them met the machine slower by more than {limits.NOISY - 1:.0%}; their times are scaled by "
        f"the product that was timed beside them, which is rough: {SEPARATOR.join(cell.key for cell in slow)}. "
    )


def rules(study: Study) -> str:
    """What makes a limit, as declared."""
    rules = study.thresholds
    told = [
        f"needs more than {study.budget.memory_mib:,} MiB or {study.budget.seconds:g} s",
        "ends not finite or collapsed",
    ]
    if study.measure == "cost":
        told.append(f"takes more than {rules.step_ratio:g} times the control's step")
    if study.measure == "learning":
        told += [
            f"lies more than {rules.accuracy_gap:g} points of accuracy, and two standard errors, below the control",
            f"ends with couplings of more than {rules.entropy:g} of the entropy of uniform ones",
            f"ends with a gradient at the first convolution of less than {rules.gradient_ratio:g} or more than "
            f"{1 / rules.gradient_ratio:g} times the control's",
        ]
    if study.measure == "streaming":
        told.append(f"has less than {rules.input_ratio:g} of the images/s of the same shards on disk")
    listed = f"{', '.join(told[:-1])}, or {told[-1]}"
    return f"A limit is the first tested value at which a cell {listed}. Thresholds were declared before the study ran."


def control_of(study: Study, axis: Axis) -> str:
    """With what arms are compared on an axis."""
    routed = next((arm.name for arm in study.arms if not arm.control), "")
    names = controls_for(study, routed, axis)
    if not names:
        return ""
    which = f"the best at each value of {SEPARATOR.join(names)}" if study.measure == "learning" else names[0]
    fixed = "" if varied(axis, names[0]) else ", at the centre"
    return f"Compared with {which}{fixed}; a control with the next."
