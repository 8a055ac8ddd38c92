"""Pictures of training runs at one value of an axis: accuracy over steps, gradients over layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.probe.limits import CENTRE, Found, Point
from trainer.probe.records import Result
from trainer.probe.report.figures import COLOURS, SIZE, legend, picture
from trainer.probe.study import Axis, Study, centre_of

LAYER = re.compile(r"gradients/(stem/conv_\d+|primary|layer_\d+|class_capsules|control)_last")
HEAD = "head"
"""Of whatever kind."""
NAMED = 8
"""Layers that a picture has room to name."""


def places(study: Study, axis: Axis) -> list[str]:
    """The values at the ends of an axis, but the centre."""
    ends = dict.fromkeys((axis.values[0], axis.values[-1]))
    middle = centre_of(study, axis)
    return [value for value in ends if value != middle]


def learning_curves(study: Study, found: Found, axis: str = CENTRE, value: str = "") -> str:
    """Training accuracy of each arm over its steps, the mean of its seeds; '' where none is known."""
    figure = Figure(figsize=SIZE, layout="constrained")
    board: Axes = figure.subplots()
    seen = False
    for at, arm in enumerate(study.arms):
        runs = [result.series for result in _at(found, arm.name, axis, value) if result.series]
        if runs:
            steps = min((run["step"] for run in runs), key=len)
            means = [sum(run["accuracy"][k] for run in runs) / len(runs) for k in range(len(steps))]
            style = "--" if arm.control else "-"
            board.plot(steps, means, style, color=COLOURS[at % len(COLOURS)], label=arm.name)
            seen = True
    where = _where(axis, value)
    board.set_xlabel("step")
    board.set_ylabel(f"training accuracy at {where}")
    board.grid(alpha=0.3)
    if not seen:
        return ""
    legend(figure)
    return picture(figure, f"training accuracy over steps at {where}")


def gradients(study: Study, found: Found, axis: str = CENTRE, value: str = "") -> str:
    """The norm of the gradient of each layer's weights, at the first look (dotted) and the last; '' where none is."""
    figure = Figure(figsize=SIZE, layout="constrained")
    board: Axes = figure.subplots()
    names: list[str] = []
    for at, arm in enumerate(study.arms):
        point = Point(value, _at(found, arm.name, axis, value))
        tags = layers(point)
        if not tags:
            continue
        longer = [HEAD if tag in ("class_capsules", "control") else tag.removeprefix("stem/") for tag in tags]
        names = longer if len(longer) > len(names) else names
        # the head stands at one place for all, whatever comes before it
        colour, style = COLOURS[at % len(COLOURS)], "--" if arm.control else "-"
        for when, line, width, label in (("first", ":", 1.0, "_"), ("last", style, 1.5, arm.name)):
            ys = [point.mean(f"gradients/{tag}_{when}") for tag in tags]
            board.plot(longer, [y if y > 0 else math.nan for y in ys], line, linewidth=width, color=colour, label=label)
    if not names:
        return ""
    where = _where(axis, value)
    board.set_xticks(range(len(names)), names if len(names) <= NAMED else _thinned(names), rotation=45, fontsize=7)
    board.set_yscale("log")
    board.set_ylabel(f"gradient of a layer at {where}")
    board.grid(alpha=0.3)
    legend(figure)
    return picture(figure, f"gradient of each layer at {where}")


def layers(point: Point) -> list[str]:
    """Names of layers with weights of which gradients are known, from the image to the head."""
    tags = dict.fromkeys(tag for result in point.results for tag in result.numbers)
    return [match[1] for tag in tags if (match := LAYER.fullmatch(tag))]


def _thinned(names: Sequence[str]) -> list[str]:
    """Every third layer between, by its number alone."""
    return [
        name if not (match := re.fullmatch(r"layer_(\d+)", name)) else match[1] if int(match[1]) % 3 == 0 else ""
        for name in names
    ]


def _at(found: Found, arm: str, axis: str, value: str) -> tuple[Result, ...]:
    return tuple(result for cell, result in found if (cell.arm, cell.axis, cell.value) == (arm, axis, value))


def _where(axis: str, value: str) -> str:
    return f"{axis} = {value}" if value else "the centre"
