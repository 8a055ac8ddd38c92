"""The studies that come with the package: a file each, found by its name, with a ``STUDY``."""

from __future__ import annotations

import importlib
import pkgutil
import shlex

from trainer.config import nearest
from trainer.errors import ConfigError
from trainer.probe.study import Study

DEFAULT = "smoke"
DATA = "data.uri"
SHARED = ("arms", "axes")
"""Modules beside the studies, which these share."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)


def load(name: str) -> Study:
    """Raises ConfigError where there is no such study."""
    if name not in names():
        raise ConfigError(f"unknown study {name}{nearest(name, names())}; there are {', '.join(names())}")
    study: Study = importlib.import_module(f"{__name__}.{name}").STUDY
    return study


def options(study: Study, *, axes: bool = False) -> str:
    """What 'capsnet probe run' and 'capsnet probe cell' are given so that the study of that name is this one.

    Args:
        axes: which of them there are, too; the cells of others are cells of the study all the same.
    """
    if study.name not in names():
        return ""
    shipped, uri = load(study.name), study.fields.get(DATA)
    changed: dict[str, object] = {
        "--data": uri if uri not in (None, shipped.fields.get(DATA)) else None,
        "--memory": study.budget.memory_mib if study.budget.memory_mib != shipped.budget.memory_mib else None,
        "--seconds": f"{study.budget.seconds:.12g}" if study.budget.seconds != shipped.budget.seconds else None,
    }
    told = [(name, str(value)) for name, value in changed.items() if value is not None]
    if axes and {axis.name for axis in study.axes} != {axis.name for axis in shipped.axes}:
        told += [("--axis", axis.name) for axis in study.axes]
    return "".join(f" {name} {shlex.quote(value)}" for name, value in told)
