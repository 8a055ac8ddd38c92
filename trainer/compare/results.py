"""What a comparison found: a summary of each arm over its seeds, and results.json and results.csv with every run."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer import config as configuration
from trainer.compare import plan as planning
from trainer.compare.arms import base_of, typed
from trainer.compare.outcome import Outcome
from trainer.compare.plan import Cell, Comparison
from trainer.config import RunConfig
from trainer.intervals import CONFIDENCE, Interval, interval, paired
from trainer.model.costs import costs

FORMAT = 1
SETS = ("test", "affine", "overlap")
"""Test records as they are, under random affine maps, and in scenes of two, which other networks are trained on."""

Runs = Sequence[tuple[Cell, Outcome]]


@dataclass(frozen=True)
class Arm:
    """What was found of an arm. Values of no run are None; costs are those of the runs without overlap.

    ``changes``: what it changes of recipe and fields, as (path, there, here). ``scores``: intervals by set. ``gains``:
    of what it has more than the first arm, seed by seed. ``speed_ratio``: its images/s over those of the first arm,
    median over seeds. ``troubles``: runs that did not end as they should, in words.
    """

    name: str
    recipe: str
    changes: tuple[tuple[str, str, str], ...]
    parameters: int
    multiply_adds: int
    scores: dict[str, Interval] = field(default_factory=dict)
    gains: dict[str, Interval] = field(default_factory=dict)
    seeds: dict[str, list[float]] = field(default_factory=dict)
    images_per_second: float | None = None
    speed_ratio: float | None = None
    peak_memory_mib: float | None = None
    seconds: float | None = None
    diverged: dict[str, int] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


def summarised(comparison: Comparison, runs: Runs, test_records: int) -> list[Arm]:
    """Each arm over its seeds, in the order of the comparison."""
    return [_summary(comparison, number, runs, test_records) for number in range(len(comparison.arms))]


def _summary(comparison: Comparison, number: int, runs: Runs, test_records: int) -> Arm:
    arm, first = comparison.arms[number], comparison.arms[0]
    mine = [(cell, outcome) for cell, outcome in runs if cell.arm == arm.name]
    plain = [(cell, outcome) for cell, outcome in mine if not cell.overlap]
    known = _by_seed(mine)
    gains = {}
    if arm is not first:
        of_first = _by_seed([(cell, outcome) for cell, outcome in runs if cell.arm == first.name])
        gains = {name: paired(_differences(known[name], of_first[name])) for name in SETS}
    rates_of_first = {
        cell.seed: outcome.images_per_second for cell, outcome in runs if cell.arm == first.name and not cell.overlap
    }
    ratios = [
        outcome.images_per_second / rate
        for cell, outcome in plain
        if outcome.images_per_second and (rate := rates_of_first.get(cell.seed))
    ]
    config = planning.cell(comparison, arm, 0).config
    total = costs(config.model).total
    return Arm(
        arm.name,
        arm.recipe,
        changes(comparison, config),
        total.parameters,
        total.multiply_adds,
        {name: interval(list(shares.values()), test_records) for name, shares in known.items() if shares},
        {name: gain for name, gain in gains.items() if gain is not None},
        {name: list(shares.values()) for name, shares in known.items()},
        _median([outcome.images_per_second for _, outcome in plain]),
        statistics.median(ratios) if ratios else None,
        max((outcome.peak_memory_mib for _, outcome in plain if outcome.peak_memory_mib), default=None),
        _median([outcome.seconds for _, outcome in plain]),
        {
            "test": sum(outcome.state == "diverged" for _, outcome in plain),
            "affine": sum(outcome.state == "diverged" for _, outcome in plain),
            "overlap": sum(outcome.state == "diverged" for cell, outcome in mine if cell.overlap),
        },
        _troubles(mine),
    )


def _by_seed(runs: Runs) -> dict[str, dict[int, float]]:
    """Accuracies of an arm by set and seed, where they are known."""
    found: dict[str, dict[int, float]] = {name: {} for name in SETS}
    for cell, outcome in runs:
        of_run = {"overlap" if cell.overlap else "test": outcome.test_accuracy, "affine": outcome.affine_accuracy}
        for name, share in of_run.items():
            if share is not None:
                found[name][cell.seed] = share
    return found


def _differences(mine: dict[int, float], others: dict[int, float]) -> list[float]:
    return [share - others[seed] for seed, share in mine.items() if seed in others]


def _troubles(runs: Runs) -> tuple[str, ...]:
    """Each state that is none to be in, with its runs and the cause of the first."""
    said = []
    for state in ("diverged", "failed"):
        found = [(cell, outcome) for cell, outcome in runs if outcome.state == state]
        if found:
            names = ", ".join(cell.name for cell, _ in found)
            said.append(f"{state}: {names}{' (the first:' if len(found) > 1 else ' ('} {found[0][1].cause})")
    return tuple(said)


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def changes(comparison: Comparison, config: RunConfig) -> tuple[tuple[str, str, str], ...]:
    """What an arm's configuration changes of the recipe and the fields that are given for all."""
    found = configuration.differences(base_of(comparison.recipe, comparison.fields), config)
    return tuple((path, typed(there), typed(here)) for path, there, here, _ in found if path not in ("recipe", "seed"))


def as_json(comparison: Comparison, arms: Sequence[Arm], runs: Runs, data: dict[str, Any]) -> bytes:
    """results.json; ``data`` describes the data set."""
    tree = {
        "format": FORMAT,
        "recipe": comparison.recipe,
        "fields": comparison.fields,
        "seeds": comparison.seeds,
        "overlap": comparison.overlap,
        "data": data,
        "confidence": CONFIDENCE,
        "arms": [_arm_tree(arm) for arm in arms],
        "runs": [_run_tree(cell, outcome) for cell, outcome in runs],
    }
    return (json.dumps(tree, indent=2) + "\n").encode()


def _arm_tree(arm: Arm) -> dict[str, Any]:
    tree = asdict(arm)
    for key, found in (("scores", arm.scores), ("gains", arm.gains)):
        tree[key] = {name: score._asdict() for name, score in found.items()}
    return tree


def _run_tree(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    said = {name: value for name, value in asdict(outcome).items() if name != "versions"}
    return {
        "run": cell.name,
        "arm": cell.arm,
        "seed": cell.seed,
        "overlap": cell.overlap,
        **said,
        "versions": outcome.versions,
        "config": cell.config.model_dump(mode="json"),
    }


def as_csv(runs: Runs) -> bytes:
    """results.csv: a line for each run, with the values of results.json but for configuration and versions."""
    text = io.StringIO()
    trees = [_run_tree(cell, outcome) for cell, outcome in runs]
    names = [name for name in trees[0] if name not in ("versions", "config")]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(trees)
    return text.getvalue().encode()
