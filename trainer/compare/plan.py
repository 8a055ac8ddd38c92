"""What a comparison is, and how it lies in its folder.

runs/compare-quick-20260101-120000/
    plan.json         recipe, fields, arms, seeds
    runs/             a run directory for each arm and seed: the logdir for TensorBoard
    outcomes/         of each run how it ended, what it printed, its score on the affine set
    results.json, results.csv, table.md, accuracy.png, cost.png, scenes.png
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer import configs
from trainer.compare import arms as arming
from trainer.compare.arms import Arm
from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.rundir import LOCK

FORMAT = 1
PLAN = "plan.json"
SEEDS = 3


@dataclass(frozen=True)
class Request:
    """What a person typed after ``capsnet compare``; None and empty: not said."""

    recipe: str | None = None
    routing: Sequence[str] = ()
    seeds: int | None = None
    fields: dict[str, str] = field(default_factory=dict)
    overlap: bool = False


@dataclass(frozen=True)
class Comparison:
    """Arms of one recipe under one budget, each with seeds 0 to ``seeds`` - 1, and with ``overlap`` on scenes too."""

    recipe: str
    arms: tuple[Arm, ...]
    seeds: int = SEEDS
    fields: dict[str, str] = field(default_factory=dict)
    overlap: bool = False


@dataclass(frozen=True)
class Cell:
    """One run of a comparison."""

    arm: str
    seed: int
    overlap: bool
    config: RunConfig

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.arm}-seed{self.seed}" + ("-overlap" if self.overlap else "")


@dataclass(frozen=True)
class Folder:
    """Where a comparison lies."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / PLAN

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def outcomes(self) -> Path:
        return self.path / "outcomes"

    def run(self, cell: Cell) -> Path:
        """Run directory."""
        return self.runs / cell.name

    def outcome(self, cell: Cell) -> Path:
        """How the run ended."""
        return self.outcomes / f"{cell.name}.json"

    def affine(self, cell: Cell) -> Path:
        """Its score on the affine set."""
        return self.outcomes / f"{cell.name}-affine.json"

    def printed(self, cell: Cell) -> Path:
        return self.outcomes / f"{cell.name}.txt"


def planned(request: Request, stored: Comparison | None, where: str) -> Comparison:
    """The comparison that is asked for; one that is stored at ``where`` only grows, by arms, seeds and scenes.

    Raises:
        ConfigError: unknown arms or fields, no seeds, or a comparison of something else is stored.
    """
    if request.seeds is not None and request.seeds < 1:
        raise ConfigError(f"--seeds {request.seeds}: give 1 or more")
    if "seed" in request.fields:
        raise ConfigError("--seed: arms are trained with seeds 0, 1, ...; say how many with --seeds")
    if request.fields.get("data.overlap.enabled", "false").lower() not in ("false", "0"):
        raise ConfigError("--data.overlap.enabled: --overlap trains each arm on scenes as well")
    if stored is None:
        recipe = request.recipe or configs.DEFAULT
        arms = arming.parse(request.routing or arming.default(recipe), recipe)
        return Comparison(recipe, arms, request.seeds or SEEDS, request.fields, request.overlap)
    other = f"{where} holds another comparison"
    if request.recipe not in (None, stored.recipe):
        raise ConfigError(f"{other}, of recipe {stored.recipe}; choose another --output")
    for path, value in request.fields.items():
        if stored.fields.get(path) != value:
            raise ConfigError(
                f"{other}, with {path} {stored.fields.get(path, 'as in the recipe')}; choose another --output"
            )
    if request.fields and (missing := [path for path in stored.fields if path not in request.fields]):
        raise ConfigError(f"{other}, with {missing[0]} {stored.fields[missing[0]]}; choose another --output")
    by_name = {arm.name: arm for arm in stored.arms}
    for arm in arming.parse(request.routing, stored.recipe) if request.routing else ():
        if by_name.setdefault(arm.name, arm) != arm:
            raise ConfigError(f"{other}, whose arm {arm.name} is not this one; name this arm otherwise")
    if request.seeds is not None and request.seeds < stored.seeds:
        raise ConfigError(f"{where} has {stored.seeds} seeds and can only get more; choose another --output")
    return Comparison(
        stored.recipe,
        tuple(by_name.values()),
        request.seeds or stored.seeds,
        stored.fields,
        request.overlap or stored.overlap,
    )


def cells(comparison: Comparison) -> list[Cell]:
    """All runs, seed after seed, so that a slow hour of the machine falls on all arms alike.

    Raises:
        ConfigError: what an arm changes does not fit; the arm is named.
    """
    kinds = (False, True) if comparison.overlap else (False,)
    return [
        cell(comparison, arm, seed, overlap)
        for seed in range(comparison.seeds)
        for overlap in kinds
        for arm in comparison.arms
    ]


def cell(comparison: Comparison, arm: Arm, seed: int, overlap: bool = False) -> Cell:
    config = arming.config_of(comparison.recipe, comparison.fields, arm, seed, overlap)
    return Cell(arm.name, seed, overlap, config)


def load(folder: Folder) -> Comparison | None:
    """The comparison that is stored; None where there is none.

    Raises:
        ConfigError: the folder holds something else.
    """
    if not folder.plan.exists():
        if folder.path.exists() and (
            not folder.path.is_dir() or any(path.name != LOCK for path in folder.path.iterdir())
        ):
            raise ConfigError(f"{folder.path}: neither empty nor a comparison; choose another --output")
        return None
    try:
        tree = json.loads(folder.plan.read_text())
        if tree.pop("format") != FORMAT:
            raise ConfigError(f"{folder.plan}: of another version of this program; choose another --output")
        return Comparison(**{**tree, "arms": tuple(Arm(**arm) for arm in tree["arms"])})
    except OSError as error:
        raise ConfigError(f"{folder.plan}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder.plan}: not a comparison ({error}); choose another --output") from None


def dump(comparison: Comparison) -> bytes:
    """The content of plan.json."""
    tree: dict[str, Any] = {"format": FORMAT, **asdict(comparison)}
    return (json.dumps(tree, indent=2) + "\n").encode()


def command(cell: Cell, run: Path) -> list[str]:
    """Words after ``capsnet`` that train a cell."""
    fields = arming.fields_given(cell.config)
    return ["train", cell.config.recipe, "--run", str(run), *(f"--{path}={value}" for path, value in fields.items())]
