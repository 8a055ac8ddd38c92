"""The page of a study: one HTML file that opens offline. Every sentence comes from the records."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.probe import limits
from trainer.probe.collect import MISSING, SKIPPED, results
from trainer.probe.limits import Found, Limit
from trainer.probe.records import OK
from trainer.probe.study import Axis, Study, centre_of
from trainer.storage import Location, atomic_write

NAME = "report.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
img { max-width: 100%; } table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: 0.2rem 0.6rem; border-bottom: 1px solid #eee; white-space: nowrap; }
td.n { text-align: right; } .bad { color: #a40000; } code { font-size: 0.85em; } 
.small { color: #666; font-size: 0.9rem; }
"""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2")
SHOWN = ("step_seconds", "gradient_seconds", "forward_seconds", "held_mib", "peak_mib", "floor_seconds", "accuracy")
SERIES = {
    "cost": (("step_seconds", "s a training step"), ("held_mib", "MiB that a step holds")),
    "learning": (("accuracy", "test accuracy"), ("entropy_last", "entropy of couplings, of uniform")),
}


def write(output: Location, folder: Path, say: Callable[[str], None]) -> Path:
    """Raises ConfigError where there is no study; StorageError, StorageRefused."""
    study, found = results(output, say)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / NAME, page(study, found).encode())
    return folder / NAME


def page(study: Study, found: Found) -> str:
    as_measured, found = found, limits.at_one_speed(found)
    ends = [limits.limit(study, found, arm.name, axis) for axis in study.axes for arm in study.arms]
    measured = sum(result.outcome not in (MISSING, SKIPPED) for _, result in found)
    body = [
        f"<h1>{_text(study.name)}: {_text(study.about)}</h1>",
        f"<p>{_answer(study, ends)}</p>",
        f'<p class="small">{measured} of {len(found)} cells are measured. {_text(_rules(study))}</p>',
        _picture(_overview(study, ends), "how far each axis goes, and what stops it"),
        *(_axis(study, found, axis, [end for end in ends if end.axis == axis.name]) for axis in study.axes),
        _table(study, as_measured),
        _provenance(as_measured),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(study.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _answer(study: Study, ends: Sequence[Limit]) -> str:
    """In words, what comes first."""
    stopped = [end for end in ends if end.stopped_at]
    controls = {arm.name for arm in study.arms if arm.control}
    routed = [end for end in stopped if end.arm not in controls]
    if not any(end.reached or end.stopped_at for end in ends):
        return "Nothing is measured yet."
    if not routed:
        told = "No arm with routing reaches a limit within the values that were tried."
    else:
        kinds = [end.by.split(":")[0] for end in routed]
        first = max(dict.fromkeys(kinds), key=kinds.count)
        told = (
            f"Of {len(routed)} limits of arms with routing, {kinds.count(first)} are of {first}: "
            + "; ".join(_text(end.sentence) for end in routed)
            + "."
        )
    there = [end for end in stopped if end.arm in controls]
    also = "; ".join(_text(end.sentence) for end in there) if there else "none"
    return f"{told} Limits of the controls: {also}."


def _rules(study: Study) -> str:
    rules = study.thresholds
    return (
        f"A limit is the first tested value that needs more than {study.budget.memory_mib:,} MiB or "
        f"{study.budget.seconds:g} s a cell, takes more than {rules.step_ratio:g} times the control's step, ends not "
        f"finite or collapsed, has couplings of entropy above {rules.entropy:g} of uniform ones, or lies more than "
        f"{rules.accuracy_gap:g} points and two standard errors below the control. Declared before the study ran."
    )


def _overview(study: Study, ends: Sequence[Limit]) -> Figure:
    rows = [(axis, arm) for axis in study.axes for arm in study.arms]
    figure = Figure(figsize=(9, 0.6 + 0.3 * len(rows)), layout="constrained")
    board = figure.subplots()
    for row, (axis, arm) in enumerate(rows):
        end = next(end for end in ends if (end.axis, end.arm) == (axis.name, arm.name))
        far = axis.values.index(end.reached) + 1 if end.reached else 0
        colour = COLOURS[[each.name for each in study.arms].index(arm.name) % len(COLOURS)]
        board.barh(row, far / len(axis.values), color=colour, alpha=0.8)
        told = f"{end.reached or '-'}" + (f"; at {end.stopped_at}: {end.by}" if end.stopped_at else "")
        board.text(far / len(axis.values) + 0.01, row, told, va="center", fontsize=8)
    board.set_yticks(range(len(rows)), [f"{axis.name}, {arm.name}" for axis, arm in rows], fontsize=8)
    board.set_xlim(0, 1.6)
    board.set_xticks([0, 1], ["0", "largest value tried"])
    board.invert_yaxis()
    board.spines[["top", "right"]].set_visible(False)
    return figure


def _axis(study: Study, found: Found, axis: Axis, ends: Sequence[Limit]) -> str:
    sentences = "".join(f"<li>{_text(end.sentence)}</li>" for end in ends)
    middle = centre_of(study, axis)
    return (
        f"<h2>{_text(axis.name)}</h2><p><code>{_text(', '.join(axis.fields))}</code>: {_text(', '.join(axis.values))}"
        f"{f'; the centre is {_text(middle)}' if middle else ''}</p><ul>{sentences}</ul>"
        + _picture(_curves(study, found, axis), f"{axis.name}: what was measured")
        + _fits(study, found, axis)
    )


def _curves(study: Study, found: Found, axis: Axis) -> Figure:
    series = SERIES[study.measure]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    boards = figure.subplots(1, len(series))
    xs = [limits.number(value) for value in axis.values]
    logarithmic = all(x > 0 for x in xs) and max(xs) / min(xs) >= 8
    for board, (name, label) in zip(boards, series, strict=True):
        seen = False
        for colour, arm in zip(COLOURS, study.arms, strict=False):
            points = limits.curve(study, found, arm.name, axis)
            ys = [point.mean(name) for point in points]
            spread = [
                point.mean("step_spread") * y / 2 if name == "step_seconds" else point.standard_error(name)
                for point, y in zip(points, ys, strict=True)
            ]
            seen |= any(y > 0 for y in ys)
            bars = [0.0 if math.isnan(each) else each for each in spread]
            style = "--" if arm.control else "-"
            board.errorbar(xs, ys, bars, marker="o", markersize=4, linestyle=style, color=colour, label=arm.name)
            if name == "step_seconds":
                floors = [point.mean("floor_seconds") for point in points]
                board.plot(xs, floors, linestyle=":", linewidth=1, color=colour)
        board.set_xlabel(axis.name)
        board.set_ylabel(label)
        if logarithmic:
            board.set_xscale("log")
        if study.measure == "cost" and seen:
            board.set_yscale("log")
        board.grid(alpha=0.3)
    boards[0].legend(fontsize=7)
    return figure


def _fits(study: Study, found: Found, axis: Axis) -> str:
    """Power laws of time and memory, and the distance to the matrix products."""
    if study.measure != "cost":
        return ""
    rows = []
    for arm in study.arms:
        points = limits.curve(study, found, arm.name, axis)
        cells = [_text(arm.name)]
        for name, _ in SERIES["cost"]:
            power = limits.fit([limits.number(p.value) for p in points], [p.mean(name) for p in points])
            cells.append(
                f"{power.exponent:.2f} &pm; {power.half_width:.2f} (residuals up to {100 * power.worst:.0f} %)"
                if power
                else "not measured at three values"
            )
        ratios = [p.mean("step_seconds") / p.mean("floor_seconds") for p in points]
        finite = [ratio for ratio in ratios if math.isfinite(ratio)]
        cells.append(f"{min(finite):.1f} to {max(finite):.1f}" if finite else "not measured")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        "<table><tr><th>arm</th><th>exponent of the step's seconds</th><th>exponent of what it holds</th>"
        "<th>step over its matrix products</th></tr>" + "".join(rows) + "</table>"
        '<p class="small">Dotted: the multiply-adds of forward and backward pass at the rate of a matrix product that '
        "was timed beside each cell, by which all times are set to one speed of the machine. A power law over few "
        "values that is bent by fixed costs has large residuals.</p>"
    )


def _table(study: Study, found: Found) -> str:
    head = ["cell", "outcome", *SHOWN]
    rows = []
    for cell, result in found:
        numbers = [f"{result.numbers[name]:.4g}" if name in result.numbers else "" for name in SHOWN]
        mark = "" if result.outcome == OK else ' class="bad"'
        why = f": {_text(result.why)}" if result.why else ""
        told = f"<td>{_text(cell.key)}</td><td{mark}>{_text(result.outcome)}{why}</td>"
        rows.append(f"<tr>{told}" + "".join(f'<td class="n">{number}</td>' for number in numbers) + "</tr>")
    one = study.axes[0].name
    return (
        "<h2>Every cell</h2><p>As measured. All of them again: "
        f"<code>capsnet probe run {_text(study.name)} --output DIR</code>; "
        f"one axis: <code>--axis '{_text(one)}'</code>. "
        "Records of each, with configuration and versions, lie at the output; <code>capsnet probe collect DIR</code> "
        "makes one table of them.</p>"
        f"<table><tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>{''.join(rows)}</table>"
    )


def _provenance(found: Found) -> str:
    seen = [result for _, result in found if result.software]
    machines = sorted({f"{r.hardware.get('cpu')}, {r.hardware.get('cores')} cores" for r in seen})
    versions = sorted({", ".join(f"{name} {value}" for name, value in r.software.items()) for r in seen})
    told = "; ".join(machines) or "not measured"
    noise = [r.numbers["reference_seconds"] for r in seen if "reference_seconds" in r.numbers]
    steady = f" The reference product took {min(noise) * 1e3:.1f} to {max(noise) * 1e3:.1f} ms." if noise else ""
    listed = "".join(f"<li>{_text(each)}</li>" for each in versions)
    return f"<h2>Where</h2><p>{_text(told)}.{steady}</p><ul>{listed}</ul>"


def _picture(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{_text(alt)}" src="data:image/svg+xml;base64,{data}"></p>'


def _text(text: str) -> str:
    return html.escape(text)
