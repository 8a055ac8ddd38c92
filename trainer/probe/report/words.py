"""What a study found, in sentences: from its limits alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.probe import limits
from trainer.probe.limits import Found, Limit, controls_for, varied
from trainer.probe.study import CENTRE, Axis, Study

SEPARATOR = " · "
"""Between names of arms, which may hold commas."""
NOTHING = "Nothing is measured yet."
LATER = (
    " Three rules of this page are younger. Two were made while the published study learning ran: that the best "
    "control counts at each value, when the convolutional one had died at 300 parents, and that a gradient may be too "
    f"large. One when all of them had run: an arm and its control fail where they have less than {limits.FAILING:g} of "
    "what the control has above chance at the centre, and are not judged by each other there."
)


def overall(studies: Sequence[tuple[Study, Sequence[Limit]]]) -> list[str]:
    """The answer over all studies: how often a limit is reached, then for each kind where it comes first."""
    split = [(study, *_split(study, ends)) for study, ends in studies]
    routed = [end for _, routed, _ in split for end in routed]
    controls = [end for _, _, controls in split for end in controls]
    if not routed:
        return [NOTHING]
    beside = f", and {_stopped(controls)} of {_pairs(controls, 'a control')}" if controls else ""
    told = [f"{_stopped(routed)} of {_pairs(routed, 'an arm with routing')} reach a limit{beside}."]
    kinds = [end.kind for end in routed if end.stopped_at]
    for kind in sorted(dict.fromkeys(kinds), key=lambda kind: -kinds.count(kind)):
        places = [
            f"{axis.name} in {study.name} ({len(mine)} of {_tried(routed, axis)}, {_from(axis, mine)})"
            for study, routed, _ in split
            for axis in study.axes
            if (mine := [end for end in routed if (end.axis, end.kind) == (axis.name, kind) and end.stopped_at])
        ]
        told.append(f"{kind.capitalize()} comes first on {'; '.join(places)}.")
    return told


def _from(axis: Axis, ends: Sequence[Limit]) -> str:
    first = min((end.stopped_at for end in ends), key=axis.values.index)
    return f"at {first}" if all(end.stopped_at == first for end in ends) else f"from {first} on"


def _tried(ends: Sequence[Limit], axis: Axis) -> int:
    return sum(end.axis == axis.name for end in ends)


def _split(study: Study, ends: Sequence[Limit]) -> tuple[list[Limit], list[Limit]]:
    """(of arms with routing, of controls), where anything is known."""
    controls = {arm.name for arm in study.arms if arm.control}
    known = [end for end in ends if end.reached or end.stopped_at]
    return [end for end in known if end.arm not in controls], [end for end in known if end.arm in controls]


def _stopped(ends: Sequence[Limit]) -> int:
    return sum(bool(end.stopped_at) for end in ends)


def _pairs(ends: Sequence[Limit], what: str) -> str:
    return f"{len(ends)} pair{'s' if len(ends) > 1 else ''} of {what} and an axis"


def answer(study: Study, ends: Sequence[Limit]) -> str:
    """What comes first, and whether it comes for the controls too."""
    routed, controls = _split(study, ends)
    if not routed and not controls:
        return NOTHING
    told = f"On {study.hardware}, with {study.budget.memory_mib:,} MiB and {study.budget.seconds:g} s a cell, "
    told += (
        f"{_stopped(routed) or 'none'} of {_pairs(routed, 'an arm with routing')} reach a limit before the axis ends"
    )
    kinds = [end.kind for end in routed if end.stopped_at]
    counted = sorted(dict.fromkeys(kinds), key=lambda kind: -kinds.count(kind))
    told += f"; what comes first: {', '.join(f'{kind} {kinds.count(kind)}' for kind in counted)}." if kinds else "."
    if not controls:
        return told
    there = [end.sentence for end in controls if end.stopped_at]
    also = f"{len(there) or 'None'} of {_pairs(controls, 'a control')} do{': ' if there else ''}{'; '.join(there)}."
    return f"{told} {also}"


def of_axis(study: Study, axis: Axis, ends: Sequence[Limit]) -> str:
    """How far each arm goes on an axis, and what stops it, in one sentence."""
    mine = [end for end in ends if end.axis == axis.name]
    stopped = [end for end in mine if end.stopped_at]
    free = [end for end in mine if not end.stopped_at and end.reached]
    parts = [f"{end.arm} stops at {end.stopped_at} ({end.by}){end.smallest}" for end in stopped]
    for reached in dict.fromkeys(end.reached for end in free):
        names = SEPARATOR.join(end.arm for end in free if end.reached == reached)
        parts.append(f"not reached up to {reached}: {names}")
    missing = SEPARATOR.join(end.arm for end in mine if not end.stopped_at and not end.reached and not end.open)
    parts += [f"{limits.NOT_MEASURED}: {missing}"] if missing else []
    for told in dict.fromkeys(told for end in mine for told in end.unknown):
        parts.append(f"{told}: {SEPARATOR.join(end.arm for end in mine if told in end.unknown)}")
    return "; ".join(parts)


def noise(found: Found) -> str:
    """Which times are rough; empty where none is."""
    slow = limits.noisy(found)
    if not slow:
        return ""
    centres = [cell.arm for cell in slow if cell.axis == CENTRE]
    told = (
        f"{len(slow)} of them met the machine slower by more than {limits.NOISY - 1:.0%}; their times are scaled by "
        f"the product that was timed beside them, which is rough: {SEPARATOR.join(cell.key for cell in slow)}. "
    )
    if centres:
        told += f"The centre stands on every axis, so that every one has rough times of {SEPARATOR.join(centres)}. "
    return told


def rules(study: Study) -> str:
    """What makes a limit, as declared."""
    rules = study.thresholds
    told = [
        f"needs more than {study.budget.memory_mib:,} MiB or {study.budget.seconds:g} s",
        "ends not finite or collapsed",
    ]
    said = {
        "step_ratio": f"takes more than {rules.step_ratio:g} times the control's step",
        "accuracy_gap": f"lies more than {rules.accuracy_gap:g} points of accuracy, and two standard errors, below the "
        "control",
        "entropy": f"ends with couplings of more than {rules.entropy:g} of the entropy of uniform ones",
        "gradient_ratio": f"ends with a gradient at the first convolution of less than {rules.gradient_ratio:g} or "
        f"more than {1 / rules.gradient_ratio:g} times the control's",
        "input_ratio": f"has less than {rules.input_ratio:g} of the images/s of the same shards on disk",
    }
    told += [said[rule] for rule in limits.COMPARED[study.measure]]
    listed = f"{', '.join(told[:-1])}, or {told[-1]}"
    return (
        f"A limit is the first tested value at which a cell {listed}. These numbers stand in study.json, which is "
        f"written before the first cell.{LATER if study.measure == 'learning' else ''}"
    )


def control_of(study: Study, axis: Axis) -> str:
    """With what arms are compared on an axis."""
    routed = next((arm.name for arm in study.arms if not arm.control), "")
    names = controls_for(study, routed, axis)
    if not names:
        return ""
    best = study.measure == "learning" and len(names) > 1
    which = f"the best at each value of {SEPARATOR.join(names)}" if best else names[0]
    fixed = "" if varied(axis, names[0]) else ", at the centre"
    return f"Compared with {which}{fixed}; a control with the next."
