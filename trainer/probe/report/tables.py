"""Tables of a study, as HTML."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Sequence
from html import escape

from trainer.probe import limits, studies
from trainer.probe.limits import Fit, Found, Limit, Point
from trainer.probe.records import OK, machine
from trainer.probe.report.words import SEPARATOR
from trainer.probe.study import Axis, Study

COLUMNS = {
    "cost": ("step_seconds", "gradient_seconds", "forward_seconds", "held_mib", "peak_mib", "floor_seconds"),
    "learning": (
        *("accuracy", "train_accuracy", "lead", "calibration_error", "entropy_last"),
        *("gradient_stem_first", "gradient_stem_last"),
        *("class_capsules/dead_parents_last", "class_capsules/dead_children_last"),
        *("class_capsules/always_on_parents_last", "class_capsules/always_on_children_last"),
    ),
    "ranks": (
        *("images_per_second", "input_wait", "step_seconds", "local_seconds", "reduction_seconds", "exposed_seconds"),
        *("gradient_bytes", "floor_seconds"),
    ),
    "streaming": (
        *("images_per_second", "second_images_per_second", "disk_images_per_second", "ratio", "second_ratio"),
        *("link_share", "cache_hits", "cache_bytes", "wait_reading", "wait_decoding", "wait_augmenting"),
    ),
}
FITTED = (("step_seconds", "step"), ("held_mib", "what it holds"), ("multiply_adds", "its multiply-adds"))
FITS_NOTE = (
    "y ~ value ^ exponent, by least squares of the logarithms, with the 95 % interval, in brackets the largest "
    "residual, and in bold the exponent between the last two values. The exponent of the multiply-adds is what "
    "theory says of time; fixed costs bend it down, large residuals tell of them, and at the end they weigh "
    "least. Finely dotted: multiply-adds of forward and backward pass at the rate of a matrix product that was "
    "timed beside each cell, by which all times are set to one speed of the machine."
)
JUDGED_BY = {
    "cost": "step_seconds",
    "learning": "accuracy",
    "ranks": "images_per_second",
    "streaming": "ratio",
}
JUDGED = {
    "cost": "A step, and how many times the control's; &asymp;: rough, scaled from a slower machine.",
    "learning": "Test accuracy in %, mean and standard error over seeds; in brackets the difference to the best "
    "control there.",
    "ranks": "Images/s.",
    "streaming": "Images/s over those of the same shards on disk.",
}
KINDS = {"memory": "memory", "time": "time", "accuracy": "accuracy", "routing": "routing", "collapse": "routing"}
"""Classes of the style, by kind of limit; 'other' for the rest."""


def overview(study: Study, ends: Sequence[Limit]) -> str:
    """A row for each axis, a column for each arm: how far it goes, and what stops it."""
    rows = []
    for axis in study.axes:
        cells = []
        for arm in study.arms:
            end = next((end for end in ends if (end.axis, end.arm) == (axis.name, arm.name)), None)
            cells.append(_far(axis, end))
        rows.append(f"<tr><th>{escape(axis.name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(arm.name)}{'<br>(control)' if arm.control else ''}</th>" for arm in study.arms)
    key = " ".join(
        f'<span class="key {name}">{escape(told)}</span>'
        for name, told in (
            ("free", "no limit reached"),
            ("time", "time"),
            ("memory", "memory"),
            ("accuracy", "accuracy"),
            ("routing", "routing"),
            ("other", "another"),
        )
    )
    return (
        f'<table class="map"><tr><th></th>{head}</tr>{"".join(rows)}</table><p class="small">Filled: how much of the '
        f"axis lies within every threshold. Colour: what stops it. {key} Not varied: empty.</p>"
    )


def _far(axis: Axis, end: Limit | None) -> str:
    if end is None:
        return "<td></td>"
    if not end.reached and not end.stopped_at:
        return f'<td title="{escape(end.sentence)}">{escape("; ".join(end.unknown) or limits.NOT_MEASURED)}</td>'
    share = (axis.values.index(end.reached) + 1) / len(axis.values) if end.reached else 0.0
    colour = "free" if not end.stopped_at else KINDS.get(end.kind, "other")
    told = f"<b>{escape(end.reached or 'none')}</b>"
    told += f"<br>at {escape(end.stopped_at)}: {escape(end.kind)}" if end.stopped_at else ""
    told += "".join(f"<br>{escape(unknown)}" for unknown in end.unknown)
    return f'<td class="{colour}" style="--far:{100 * share:.0f}%" title="{escape(end.sentence)}">{told}</td>'


def judged(study: Study, found: Found, axis: Axis, rough: Collection[str]) -> str:
    """What limits on an axis are read from: a row for each arm, a column for each value. ``rough``: keys of cells of
    which times are."""
    controls = {arm.name for arm in study.arms if arm.control}
    rows = []
    for arm in study.arms:
        if not limits.varied(axis, arm.name):
            continue
        others = limits.beside(study, found, arm.name, axis)
        cells = []
        for point in limits.curve(study, found, arm.name, axis):
            other = others.get(point.value)
            told = _judged(study, point, other)
            told = f"&asymp; {told}" if told and any(result.cell in rough for result in point.results) else told
            crossed = limits.crossed(study, point, other, control=arm.name in controls)
            cells.append(
                f'<td title="{escape("; ".join(crossed))}"><b>{told}</b></td>' if crossed else f"<td>{told}</td>"
            )
        rows.append(f"<tr><th>{escape(arm.name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(value)}</th>" for value in axis.values)
    bold = " Bold: crosses a threshold." if limits.COMPARED[study.measure] else ""
    return (
        f'<table><tr><th>{escape(axis.name)}</th>{head}</tr>{"".join(rows)}</table><p class="small">'
        f"{JUDGED[study.measure]}{bold}</p>"
    )


def _judged(study: Study, point: Point, other: Point | None) -> str:
    """Empty where nothing is measured."""
    name = JUDGED_BY[study.measure]
    mine = point.mean(name)
    if not math.isfinite(mine):
        return escape(SEPARATOR.join(dict.fromkeys(result.outcome for result in point.results)))
    if study.measure == "cost":
        ratio = mine / other.mean(name) if other else math.nan
        return f"{1e3 * mine:,.0f} ms" + (f", {ratio:.1f}" if math.isfinite(ratio) else "")
    if study.measure == "learning":
        gap, errors = limits.gap_of(point, other) if other else (math.nan, math.nan)
        told = f"{100 * mine:.1f}" + _error(100 * point.standard_error(name))
        return told + (f" ({-gap:+.1f}{_error(errors)})" if math.isfinite(gap) else "")
    return f"{mine:,.0f}" if study.measure == "ranks" else f"{mine:.2f}"


def _error(error: float) -> str:
    return f" &pm; {error:.1f}" if math.isfinite(error) else ""


def fits(study: Study, found: Found, axis: Axis) -> str:
    """Power laws of time, memory and multiply-adds, and the distance to the matrix products."""
    if study.measure != "cost":
        return ""
    rows = []
    for arm in study.arms:
        if not limits.varied(axis, arm.name):
            continue
        points = limits.curve(study, found, arm.name, axis)
        cells = [escape(arm.name)]
        for name, _ in FITTED:
            power = limits.fit([limits.number(p.value) for p in points], [p.mean(name) for p in points])
            cells.append(_power(power) if power else "not at three values")
        ratios = [p.mean("step_seconds") / p.mean("floor_seconds") for p in points]
        finite = [ratio for ratio in ratios if math.isfinite(ratio)]
        cells.append(f"{min(finite):.1f} to {max(finite):.1f}" if finite else "not measured")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>exponent of {told}</th>" for _, told in FITTED)
    return (
        f"<table><tr><th>arm</th>{head}<th>step over its matrix products</th></tr>{''.join(rows)}</table>"
        f'<p class="small">{FITS_NOTE}</p>'
    )


def _power(power: Fit) -> str:
    return f"{power.exponent:.2f} &pm; {power.half_width:.2f} (to {100 * power.worst:.0f} %); <b>{power.last:.2f}</b>"


def every_cell(study: Study, found: Found) -> str:
    """As measured, each with the command that measures it again."""
    shown, options = COLUMNS[study.measure], studies.options(study)
    rows = []
    for cell, result in found:
        numbers = [f"{result.numbers[name]:.4g}" if name in result.numbers else "" for name in shown]
        mark = "" if result.outcome == OK else ' class="bad"'
        why = f": {escape(result.why)}" if result.why else ""
        again = f"capsnet probe cell {study.name} {shlex.quote(cell.key)}{options}"
        told = f"<td>{escape(cell.key)}</td><td{mark}>{escape(result.outcome)}{why}</td>"
        told += "".join(f'<td class="n">{number}</td>' for number in numbers)
        rows.append(f"<tr>{told}<td><code>{escape(again)}</code></td></tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("cell", "outcome", *shown, "again"))
    whole = f"capsnet probe run {study.name}{studies.options(study, axes=True)} --output DIR"
    return (
        f"<details><summary>Every cell of {escape(study.name)} ({len(rows)}), as measured</summary>"
        f"<p>All of them again: <code>{escape(whole)}</code>. Records of each, "
        "with configuration and versions, lie at the output; <code>capsnet probe collect DIR</code> makes one table of "
        f"them.</p><table><tr>{head}</tr>{''.join(rows)}</table></details>"
    )


def provenance(found: Found) -> str:
    seen = [result for _, result in found if result.software]
    machines = sorted({f"{machine(r.hardware)}, {r.hardware.get('cores')} cores" for r in seen})
    versions = sorted({", ".join(f"{name} {value}" for name, value in r.software.items()) for r in seen})
    told = "; ".join(machines) or "not measured"
    noise = [r.numbers["reference_seconds"] for r in seen if "reference_seconds" in r.numbers]
    steady = f" The reference product took {min(noise) * 1e3:.1f} to {max(noise) * 1e3:.1f} ms." if noise else ""
    return f'<p class="small">Measured on {escape(told)}; {escape("; ".join(versions))}.{steady}</p>'
