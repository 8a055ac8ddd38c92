"""What is compared: an arm is a name and what it changes of a recipe.

Values are laid over each other in this order, the last counts: the recipe; what the arm's algorithm (NEEDS, LENGTHS)
or a control (LOGITS) needs; the fields given for all arms; what makes the arm; the seed; what crowded scenes need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig, nearest
from trainer.errors import ConfigError
from trainer.model import routing

ALGORITHM = "model.routing.algorithm"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")
ASSIGNMENT = re.compile(r"(?:([^:=]*):)?([^:=]+)=(.*)")
BUDGET = ("seed", "train.epochs", "train.global_batch_size", "data.")
"""Fields that arms have in common: an arm cannot change them."""

NEEDS: dict[str, dict[str, str]] = {
    "em": {  # poses of any length, activations beside them; with margin loss all activations go to 0 and stay there
        "model.primary.nonlinearity": "none",
        "model.primary.activation": "sigmoid",
        "loss.kind": "cross_entropy",
        "loss.scale": "10",
    },
    "inverted": {"loss.kind": "cross_entropy", "loss.scale": "1"},  # its activations are logits
    "self_routing": {  # activations beside the poses, which are not squashed; those of the parents are probabilities
        "model.primary.nonlinearity": "none",
        "model.primary.activation": "sigmoid",
        "loss.kind": "nll",
    },
}
"""What an algorithm overrides besides itself, where the recipe is not one of its own, so as to train as intended."""

LENGTHS = {
    "model.primary.nonlinearity": "squash",
    "model.primary.activation": "length",
    "model.head.initial_scale": "parents",
    "model.head.coordinates": "false",
    "loss.kind": "margin",
    "loss.label_smoothing": "0",
}
"""The same of all other algorithms, whose activations are lengths, where the recipe is of one in NEEDS."""

LOGITS = {"model.head.scores": "linear", "loss.scale": "1"}
"""What a control without capsules overrides where the loss is a softmax, under which bounded scores die."""

KEPT = {"checkpoint.keep_last": "1"}
"""For all arms: of a run that is done only the last checkpoint is needed."""

CONTROLS: dict[str, dict[str, str]] = {
    "first": {"model.routing.iterations": "1"},
    "conv_parameters": {"model.head.kind": "conv_parameters"},
    "conv_multiply_adds": {"model.head.kind": "conv_multiply_adds"},
}
"""Arms that are no algorithms. ``first``: of the recipe's algorithm the first iteration only; the others: a convolution
in place of capsules, with as many parameters, or multiply-adds."""


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    ``overrides`` make it; ``needs`` give way to what is given for all arms. ``recipe``: its network, loss and optimizer
    are that recipe's, its data and budget those of the comparison.
    """

    name: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""


def kinds() -> dict[str, list[str]]:
    """Names that stand for an arm by themselves."""
    return {"routing": [*routing.names()], "controls": [*CONTROLS], "recipes": configs.names()}


def known() -> list[str]:
    """All of ``kinds``."""
    return [*dict.fromkeys(name for names in kinds().values() for name in names)]


def default(recipe: str) -> list[str]:
    """Every algorithm and control, the recipe's own algorithm first."""
    own = configs.load(recipe).model.routing.algorithm
    return [own, *(name for name in routing.names() if name != own), *CONTROLS]


def parse(texts: Sequence[str], recipe: str) -> tuple[Arm, ...]:
    """Arms of ``--routing``: names, or NAME:field=value,field=value, separated by commas.

    Raises:
        ConfigError: an unknown arm or field, a name that is taken, a field that belongs to the budget.
    """
    base = configs.load(recipe)
    own = base.model.routing.algorithm
    found: dict[str, Arm] = {}
    for name, fields in _split(",".join(texts)):
        arm = _free(name, fields, own) if fields else _named(name, base)
        if name in found:
            raise ConfigError(f"--routing: {name} is given twice; give each arm a name of its own")
        found[name] = arm
    if not found:
        raise ConfigError(f"--routing: no arm; there are {', '.join(known())}")
    return tuple(found.values())


def _split(text: str) -> list[tuple[str, dict[str, str]]]:
    """(name, fields) of each arm. A piece that begins with a digit goes on with the list of values before it."""
    arms: list[tuple[str, dict[str, str]]] = []
    path = ""  # of the field before, in the same arm
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        assigned = ASSIGNMENT.fullmatch(piece)
        if assigned:
            name, path, value = assigned.groups()
            if name:
                arms.append((name, {}))
            elif not arms or not arms[-1][1]:
                raise ConfigError(f"--routing {piece}: a field needs a name before it, as in NAME:{piece}")
            arms[-1][1][path] = value
        elif path and piece[0].isdigit():
            arms[-1][1][path] += f",{piece}"
        elif ":" in piece:
            raise ConfigError(f"--routing {piece}: give NAME:field=value,field=value")
        else:
            arms.append((piece, {}))
            path = ""
    return arms


def _named(name: str, base: RunConfig) -> Arm:
    if name in routing.names():
        return Arm(name, {ALGORITHM: name}, _needs(name, base.model.routing.algorithm))
    if name in CONTROLS:
        return Arm(name, CONTROLS[name])
    if name in configs.names():
        return Arm(name, recipe=name)
    raise ConfigError(f"unknown arm {name}{nearest(name, known())}; there are {', '.join(known())}")


def _free(name: str, fields: dict[str, str], own: str) -> Arm:
    if name in known():
        raise ConfigError(f"--routing {name}:...: {name} is an arm already; give this one a name of its own")
    if not NAME.fullmatch(name):
        raise ConfigError(f"--routing {name}:...: a name is a letter and up to 19 letters, digits, - and _")
    paths = [path for path, _ in configuration.leaves()]
    for path in fields:
        if path not in paths:
            raise ConfigError(f"arm {name}: unknown field {path}{nearest(path, paths)}; see 'capsnet train --help'")
        if any(path == shared or (shared.endswith(".") and path.startswith(shared)) for shared in BUDGET):
            raise ConfigError(f"arm {name}: {path} is the same for all arms; give it as --{path}")
    return Arm(name, fields, _needs(fields.get(ALGORITHM, own), own))


def _needs(algorithm: str, own: str) -> dict[str, str]:
    return {} if algorithm == own else NEEDS.get(algorithm, LENGTHS if own in NEEDS else {})


def config_of(recipe: str, fields: Mapping[str, str], arm: Arm, seed: int, overlap: bool) -> RunConfig:
    """The whole configuration of one run of an arm.

    Raises:
        ConfigError: a value is out of range, or values do not fit each other; the arm is named.
    """
    base = configs.load(recipe)
    if arm.recipe:
        other = configs.load(arm.recipe)
        base = base.model_copy(update={name: getattr(other, name) for name in ("recipe", "model", "loss", "optimizer")})
    given = {**fields, **arm.overrides}
    try:
        config = configuration.with_overrides(base, {**KEPT, **arm.needs, **given, "seed": seed})
        config = configuration.with_overrides(config, scenes_of(config)) if overlap else config
        if config.loss.kind == "cross_entropy" and "model.head.kind" in arm.overrides:
            logits = {path: value for path, value in LOGITS.items() if path not in given}
            config = configuration.with_overrides(config, logits)
        return config
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {str(error).removeprefix('command line: ')}") from None


def base_of(recipe: str, fields: Mapping[str, str]) -> RunConfig:
    """What the arms change: the recipe with the fields that are given for all."""
    return configuration.with_overrides(configs.load(recipe), {**KEPT, **fields})


def scenes_of(config: RunConfig) -> dict[str, Any]:
    """What crowded scenes need: room for the shifts, no other shift, and a loss that knows two classes at once."""
    loss = {"loss.kind": "cross_entropy"} if config.loss.kind == "spread" else {}
    return {
        "data.overlap.enabled": True,
        "model.image_size": config.model.image_size + 2 * config.data.overlap.shift,
        "data.augment.shift": 0,
        **loss,
    }


def fields_given(config: RunConfig) -> dict[str, str]:
    """What a configuration changes of its recipe, as it is typed."""
    changes = configuration.differences(configs.load(config.recipe), config)
    return {path: typed(value) for path, _, value, _ in changes}


def typed(value: Any) -> str:
    """A value of a configuration as on a command line."""
    if isinstance(value, tuple):
        return ",".join(typed(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value if not isinstance(value, int) else int(value))
