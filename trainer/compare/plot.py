"""accuracy.png and cost.png. The only importer of matplotlib, with scenes.py; no window is ever opened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from trainer.compare.results import SETS, Arm

COLOURS = {"test": "#0072b2", "affine": "#d55e00", "overlap": "#009e73"}
"""Told apart by people who see fewer colours (Okabe and Ito); the marks differ as well."""
MARKS = {"test": "o", "affine": "s", "overlap": "^"}
LABELS = {"test": "test set", "affine": "affine test set", "overlap": "scenes of two (own training)"}
GREY = "#666666"
WIDTH = 7.0  # inches
ROW = 0.36  # inches for each arm
DPI = 150


def accuracy(title: str, arms: Sequence[Arm]) -> bytes:
    """Mean and interval of each arm on each set, with each seed beside it, as PNG. Each set has its own axis."""
    sets = [name for name in SETS if any(name in arm.scores for arm in arms)] or ["test"]
    figure = Figure(figsize=(WIDTH, 1.4 + ROW * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        for row, arm in enumerate(arms):
            score = arm.scores.get(name)
            if score is None:
                why = "diverged" if arm.diverged.get(name) else "not measured"
                axes.text(0.5, row, why, transform=axes.get_yaxis_transform(), ha="center", va="center", color=GREY)
                continue
            mean, reach = 100 * score.mean, [[100 * (score.mean - score.low)], [100 * (score.high - score.mean)]]
            axes.errorbar(mean, row, xerr=reach, fmt=MARKS[name], color=COLOURS[name], capsize=3, zorder=3)
            shares = arm.seeds[name]
            if len(shares) > 1:
                beside = [row + 0.24] * len(shares)
                axes.plot([100 * share for share in shares], beside, "|", color=COLOURS[name], alpha=0.7)
        axes.set_xlabel(f"{LABELS[name]}, %")
        axes.margins(x=0.08)
    _rows(panels[0], [arm.name for arm in arms])
    for axes in panels:
        _plain(axes)
    kinds = {score.kind for arm in arms for score in arm.scores.values()}
    how = {"t": "95 % t interval over seeds (ticks: each seed)", "wilson": "95 % Wilson interval of one seed"}
    figure.suptitle(
        f"{title}: accuracy, {', '.join(how[kind] for kind in sorted(kinds)) or 'nothing done yet'}", size=9
    )
    return _png(figure)


def cost(title: str, arms: Sequence[Arm]) -> bytes:
    """Bars of what each arm costs, as PNG."""
    columns: list[tuple[str, list[float | None], str]] = [
        ("parameters, millions", [arm.parameters / 1e6 for arm in arms], "{:.3g}"),
        ("multiply-adds, millions", [arm.multiply_adds / 1e6 for arm in arms], "{:.3g}"),
        (f"images/s, {arms[0].name} = 1", [arm.speed_ratio for arm in arms], "{:.2f}"),
        ("peak memory, MiB", [arm.peak_memory_mib for arm in arms], "{:,.0f}"),
    ]
    figure = Figure(figsize=(WIDTH, 1.2 + ROW * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (label, values, form) in zip(panels, columns, strict=True):
        bars = axes.barh(range(len(arms)), [value or 0.0 for value in values], color="#56b4e9", height=0.65)
        axes.bar_label(bars, ["-" if value is None else form.format(value) for value in values], padding=2, size=8)
        axes.set_xlabel(label)
        axes.margins(x=0.25)
        axes.set_xlim(left=0)
        _plain(axes)
    _rows(panels[0], [arm.name for arm in arms])
    figure.suptitle(f"{title}: cost", size=9)
    return _png(figure)


def _rows(axes: Any, names: Sequence[str]) -> None:
    """The arms from top to bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _plain(axes: Any) -> None:
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()
