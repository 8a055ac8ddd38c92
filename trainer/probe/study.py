"""What a study is: declared before it runs, thresholds and all, and read like a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig
from trainer.errors import ConfigError

Measure = Literal["cost", "learning"]
CENTRE = "centre"


@dataclass(frozen=True)
class Axis:
    """One field of the configuration, and its values in rising order: more of it costs more."""

    name: str
    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """A way to do it: fields on top of the study's. ``control``: without routing; others are compared to the first."""

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
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
    """

    step_ratio: float = 10.0
    entropy: float = 0.999
    accuracy_gap: float = 2.0


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
    fields: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    thresholds: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True)
class Cell:
    """``axis`` is CENTRE for the centre itself, which belongs to every axis."""

    key: str
    arm: str
    axis: str
    value: str
    seed: int
    fields: Mapping[str, str]


def cells(study: Study) -> list[Cell]:
    """All of them, so ordered that a useful picture exists early: the centre, the ends of all axes, then between.

    Raises:
        ConfigError: there is nothing to measure.
    """
    if not study.arms or not study.seeds or not all(axis.values for axis in study.axes):
        raise ConfigError(f"study {study.name}: an axis, the arms or the seeds have no values")
    found: list[tuple[tuple[int, int], Cell]] = []
    for seed in study.seeds:
        for arm in study.arms:
            base = {**study.fields, **arm.fields, "seed": str(seed)}
            found.append(((seed, 0), _cell(arm, CENTRE, "", seed, base)))
            for axis in study.axes:
                middle = centre_of(study, axis)
                ranks = {value: rank for rank, value in enumerate(coarse_to_fine(axis.values))}
                for value in axis.values:
                    if value != middle:
                        cell = _cell(arm, axis.name, value, seed, {**base, axis.field: value})
                        found.append(((seed, 1 + ranks[value]), cell))
    return [cell for _, cell in sorted(found, key=lambda each: each[0])]


def _cell(arm: Arm, axis: str, value: str, seed: int, fields: Mapping[str, str]) -> Cell:
    place = f"{axis}={value}" if value else axis
    return Cell(f"{arm.name}/{place}/seed{seed}", arm.name, axis, value, seed, fields)


def centre_of(study: Study, axis: Axis) -> str:
    """The value of an axis at the centre, as its values are written; '' where the centre is none of them."""
    config = configuration.with_overrides(configs.load(study.recipe), dict(study.fields)).model_dump(mode="json")
    for name in axis.field.split("."):
        config = config[name]
    text = ",".join(map(str, config)) if isinstance(config, list | tuple) else str(config)
    return text if text in axis.values else ""


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
    return configuration.with_overrides(configs.load(study.recipe), dict(cell.fields))


def fingerprint(study: Study) -> str:
    """Of everything that its records mean."""
    return hashlib.sha256(json.dumps(asdict(study), sort_keys=True).encode()).hexdigest()[:16]
