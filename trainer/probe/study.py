"""What a study is: declared before it runs, thresholds and all, and read like a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig
from trainer.errors import ConfigError

Measure = Literal["cost", "learning", "ranks", "streaming"]
Changes = Mapping[str, str]
"""Fields of the configuration, and settings of the measure, whose names begin with ``SETTING``."""
CENTRE = "centre"
SETTING = "probe."


@dataclass(frozen=True)
class Axis:
    """What varies, in rising order: more of it costs more.

    Attributes:
        points: each value, as it is shown, and what it changes.
        arms: those that it is varied for; empty: all. Others stand at the centre along the whole axis.
        note: what a reader of the results must know of it.
    """

    name: str
    points: Mapping[str, Changes]
    arms: tuple[str, ...] = ()
    note: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.points)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for changes in self.points.values() for name in changes))


def over(name: str, field: str, values: tuple[str, ...], arms: tuple[str, ...] = (), note: str = "") -> Axis:
    """An axis of one field."""
    return Axis(name, {value: {field: value} for value in values}, arms, note)


@dataclass(frozen=True)
class Arm:
    """A way to do it: fields on top of the study's. ``control``: without routing; others are compared to the
    best of them."""

    name: str
    fields: Changes = field(default_factory=dict)
    control: bool = False


@dataclass(frozen=True)
class Budget:
    """Of one cell. ``memory_mib``: resident, of all its processes together."""

    seconds: float
    memory_mib: int


@dataclass(frozen=True)
class Thresholds:
    """A limit is the first value of an axis at which one of these is crossed.

    Attributes:
        step_ratio: seconds of a step over the control's at the same value.
        entropy: of the couplings at the end of training, of that of uniform ones: routing that does not choose.
        accuracy_gap: points below the control, beyond two standard errors of both.
        input_ratio: images/s of the input over those of the same shards on disk.
        gradient_ratio: gradient of the first convolution at the end of training over the control's: less is starved,
            more than its inverse has exploded.
    """

    step_ratio: float = 10.0
    entropy: float = 0.9999
    accuracy_gap: float = 2.0
    gradient_ratio: float = 0.01
    input_ratio: float = 0.9


@dataclass(frozen=True)
class Study:
    """``fields``: the centre, on top of a recipe. Axes vary one at a time around it; for each arm and seed."""

    name: str
    about: str
    measure: Measure
    recipe: str
    budget: Budget
    arms: tuple[Arm, ...]
    axes: tuple[Axis, ...]
    fields: Changes = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    thresholds: Thresholds = field(default_factory=Thresholds)
    hardware: str = "two CPU cores"
    """What its budget is meant for: 'first' is relative to it."""


@dataclass(frozen=True)
class Cell:
    """``axis`` is CENTRE for the centre itself, which belongs to every axis."""

    key: str
    arm: str
    axis: str
    value: str
    seed: int
    fields: Changes


def cells(study: Study) -> list[Cell]:
    """All of them, so ordered that a useful picture exists early: the centre, the ends of all axes, then between.

    Raises:
        ConfigError: there is nothing to measure.
    """
    if not study.arms or not study.seeds or not all(axis.points for axis in study.axes):
        raise ConfigError(f"study {study.name}: an axis, the arms or the seeds have no values")
    middles = {axis.name: centre_of(study, axis) for axis in study.axes}
    found: list[tuple[tuple[int, int], Cell]] = []
    for seed in study.seeds:
        for arm in study.arms:
            base = {**study.fields, **arm.fields, "seed": str(seed)}
            found.append(((seed, 0), _cell(arm, CENTRE, "", seed, base)))
            for axis in study.axes:
                if axis.arms and arm.name not in axis.arms:
                    continue
                ranks = {value: rank for rank, value in enumerate(coarse_to_fine(axis.values))}
                for value, changes in axis.points.items():
                    if value != middles[axis.name]:
                        cell = _cell(arm, axis.name, value, seed, {**base, **changes})
                        found.append(((seed, 1 + ranks[value]), cell))
    return [cell for _, cell in sorted(found, key=lambda each: each[0])]


def _cell(arm: Arm, axis: str, value: str, seed: int, fields: Changes) -> Cell:
    place = f"{axis}={value}" if value else axis
    return Cell(f"{arm.name}/{place}/seed{seed}", arm.name, axis, value, seed, fields)


def centre_of(study: Study, axis: Axis) -> str:
    """The value of an axis at the centre, which changes nothing there; '' where the centre is none of them."""
    recipe = configs.load(study.recipe)
    fields, settings = split(study.fields)
    centre = configuration.with_overrides(recipe, dict(fields))
    for value, changes in axis.points.items():
        changed, set_here = split(changes)
        if any(settings.get(name) != told for name, told in set_here.items()):
            continue
        try:
            if configuration.with_overrides(centre, dict(changed)) == centre:
                return value
        except ConfigError:  # sizes that do not fit are no centre
            continue
    return ""


def split(changes: Changes) -> tuple[Changes, Changes]:
    """(fields of the configuration, settings of the measure without their prefix)."""
    fields = {name: value for name, value in changes.items() if not name.startswith(SETTING)}
    return fields, {name.removeprefix(SETTING): value for name, value in changes.items() if name not in fields}


def coarse_to_fine(values: tuple[str, ...]) -> list[str]:
    """The last, the first, then what halves the largest gaps."""
    order, gaps = [len(values) - 1, 0], [(0, len(values) - 1)]
    while gaps:
        first, last = gaps.pop(0)
        middle = (first + last) // 2
        if middle not in order:
            order.append(middle)
        gaps += [gap for gap in ((first, middle), (middle, last)) if gap[1] - gap[0] > 1]
    return [values[at] for at in dict.fromkeys(order)]


def config_of(study: Study, cell: Cell) -> RunConfig:
    """Raises ConfigError where sizes do not fit."""
    return configuration.with_overrides(configs.load(study.recipe), dict(split(cell.fields)[0]))


def classes_of(study: Study, cell: Cell) -> int:
    """Also of a cell whose sizes do not fit, of which there may be a record all the same."""
    given = split(cell.fields)[0].get("model.classes")
    return int(given) if given else configs.load(study.recipe).model.classes


def fingerprint(study: Study) -> str:
    """Of everything that its records mean."""
    return hashlib.sha256(json.dumps(asdict(study), sort_keys=True).encode()).hexdigest()[:16]


def joined(one: Study, other: Study) -> Study | None:
    """A study with the axes of both, where they differ in nothing else; None where they do."""
    more, less = sorted((one, other), key=lambda study: len(study.axes), reverse=True)  # the order is that of more
    axes = {axis.name: axis for axis in (*more.axes, *less.axes)}
    same = all(axes[axis.name] == axis for axis in more.axes)
    if same and fingerprint(replace(one, axes=())) == fingerprint(replace(other, axes=())):
        return replace(more, axes=tuple(axes.values()))
    return None
