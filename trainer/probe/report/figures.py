"""Pictures of a study, each panel one of its own so that a narrow page can stack them."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.probe import limits
from trainer.probe.limits import Found, Point
from trainer.probe.study import Axis, Study

COLOURS = ("#1f77b4", "#17becf", "#9467bd", "#2ca02c", "#8c564b", "#e377c2", "#bcbd22", "#d62728", "#ff7f0e", "#7f7f7f")
SIZE = (5.0, 3.8)
PLAIN: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "capsnet",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
}
"""Text as text, which is smaller than its outlines; the same names inside for the same picture."""
FINE = re.compile(rb"(\d\.\d\d)\d+(?!\d*</text>)")
"""Digits beyond hundredths of a point, which nobody sees; those of text are seen."""
INDENT = re.compile(rb"\n[ \n]*")
WIDE = 8.0
"""Ratio of the ends of an axis from which on it is logarithmic."""

SHOWN = {
    "cost": (("step_seconds", "s a training step"), ("held_mib", "MiB that a step holds")),
    "learning": (("accuracy", "test accuracy"), ("lead", "lead of the right class"), ("calibration_error", "ECE")),
    "ranks": (("images_per_second", "images/s"), ("step_seconds", "s a step"), ("reduction_seconds", "s of reduction")),
    "streaming": (
        ("images_per_second", "images/s"),
        ("ratio", "of the speed from disk"),
        ("link_share", "of the link"),
    ),
}
"""Numbers that are drawn against each axis, by measure."""
HEALTH = (
    ("entropy_last", "entropy of couplings, of uniform"),
    ("favourite_changed_last", "favourite parent changed by routing"),
    ("class_capsules/dead_parents_last", "share of dead class capsules"),
    ("class_capsules/always_on_parents_last", "share of class capsules always on"),
    ("class_capsules/dead_children_last", "share of dead children"),
    ("class_capsules/always_on_children_last", "share of children always on"),
    ("class_capsules/silent_parents_last", "share of class capsules near 0"),
    ("gradient_stem_first", "gradient at the first convolution, start"),
    ("gradient_stem_last", "gradient at the first convolution, end"),
)
"""Of the class capsules and their children at the end, where nothing else is said."""
POSITIVE = (
    *("step_seconds", "held_mib", "reduction_seconds"),
    *("gradient_stem_first", "gradient_stem_last"),
)
"""Drawn logarithmically."""


def panels(study: Study, found: Found, axis: Axis, shown: Sequence[tuple[str, str]]) -> list[str]:
    """A picture for each number that was measured anywhere on the axis, and is not 0 everywhere."""
    pictures = [_panel(study, found, axis, name, label) for name, label in shown]
    return [picture for picture in pictures if picture]


def nowhere(study: Study, found: Found, axis: Axis, shown: Sequence[tuple[str, str]]) -> list[str]:
    """Labels of numbers that are 0 wherever they were measured on the axis: a picture would say no more."""
    return [label for name, label in shown if (seen := _seen(study, found, axis, name)) and not any(seen)]


def _seen(study: Study, found: Found, axis: Axis, name: str) -> list[float]:
    means = [point.mean(name) for arm in study.arms for point in limits.curve(study, found, arm.name, axis)]
    return [mean for mean in means if math.isfinite(mean)]


def positions(axis: Axis) -> list[float]:
    """Where values stand: at their numbers, or one after the other where one is no plain number, as 64MiB."""
    try:
        return [float(value) for value in axis.values]
    except ValueError:
        return [float(at) for at in range(len(axis.values))]


def _panel(study: Study, found: Found, axis: Axis, name: str, label: str) -> str:
    curves = {arm.name: limits.curve(study, found, arm.name, axis) for arm in study.arms}
    if not any(_seen(study, found, axis, name)):
        return ""
    figure = Figure(figsize=SIZE, layout="constrained")
    board: Axes = figure.subplots()
    xs = positions(axis)
    for at, arm in enumerate(study.arms):
        points, colour = curves[arm.name], COLOURS[at % len(COLOURS)]
        ys = [point.mean(name) for point in points]
        if not any(map(math.isfinite, ys)):
            continue
        style = ":" if not limits.varied(axis, arm.name) else "--" if arm.control else "-"
        marker = "" if not limits.varied(axis, arm.name) else "o"
        bars = [_spread(point, name) for point in points]
        board.errorbar(xs, ys, bars, marker=marker, markersize=4, linestyle=style, color=colour, label=arm.name)
        if name == "step_seconds":
            floors = [point.mean("floor_seconds") for point in points]
            board.plot(xs, floors, linestyle=(0, (1, 3)), linewidth=1, color=colour)
    board.set_xlabel(axis.name)
    board.set_ylabel(label)
    if min(xs) > 0 and max(xs) / min(xs) >= WIDE:
        board.set_xscale("log")
        board.minorticks_off()
    board.set_xticks(xs, axis.values, fontsize=7)
    if name in POSITIVE:
        board.set_yscale("log")
    board.grid(alpha=0.3)
    legend(figure)
    return picture(figure, f"{label} over {axis.name}")


def _spread(point: Point, name: str) -> float:
    """Half the distance of the quartiles of times; the standard error over seeds of others."""
    quartiles = name == "step_seconds"
    half = point.mean("step_spread") * point.mean(name) / 2 if quartiles else point.standard_error(name)
    return half if math.isfinite(half) else 0.0


def legend(figure: Figure) -> None:
    """Below the axes, where it hides nothing."""
    figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False)


def picture(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    with rc_context(PLAIN):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    short = INDENT.sub(b"\n", FINE.sub(rb"\1", buffer.getvalue()))
    data = base64.b64encode(short).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'
