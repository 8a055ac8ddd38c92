"""The studies that come with the package: a file each, found by its name, with a ``STUDY``."""

from __future__ import annotations

import importlib
import pkgutil

from trainer.config import nearest
from trainer.errors import ConfigError
from trainer.probe.study import Study

DEFAULT = "smoke"
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
