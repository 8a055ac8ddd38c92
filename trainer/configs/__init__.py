"""Recipes: named runs. A recipe is a module of this folder with ``CLAIM`` and ``config() -> RunConfig``."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from trainer.config import RunConfig, nearest
from trainer.errors import ConfigError

DEFAULT = "quick"
NOT_MEASURED = "not measured here"


class Claim(NamedTuple):
    """What a recipe promises; ``score`` is the test accuracy."""

    hardware: str
    time: str
    score: str


def names() -> list[str]:
    """Names of all recipes, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> RunConfig:
    """The configuration of a recipe. Raises ConfigError, with the nearest name, where there is none."""
    return _module(name).config().model_copy(update={"recipe": name})


def claims() -> dict[str, Claim]:
    """What each recipe claims."""
    return {name: _module(name).CLAIM for name in names()}


def _module(name: str) -> ModuleType:
    if name not in names():
        raise ConfigError(f"unknown recipe {name}{nearest(name, names())}; 'capsnet recipes' lists all")
    return import_module(f"{__name__}.{name}")
