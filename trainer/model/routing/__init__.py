"""Routing algorithms, one a file.

An algorithm is a module of this package with the name that it has in ``RoutingConfig.algorithm``, and with

    weights(config, parents, pose) -> dict[str, WeightSpec]
        what it learns besides the transform; its keys are the keys of ``extra`` below
    route(poses_BIP, transform_TJPQ, extra, config, *, trace=False, coupling_records=0)
        -> (poses_BJQ, RoutingTrace | None)

To add one: write the file, and add its name to ``RoutingConfig.algorithm``. Importing this package does not
import TensorFlow.

Axes: B batch, I children, T transforms (T = I, or the child types where I = positions x T), J parents,
P/Q child/parent pose size.
"""

from __future__ import annotations

import typing
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from trainer.config import RoutingConfig


class WeightSpec(NamedTuple):
    """A learned weight of a routing algorithm: shape and constant initial value."""

    shape: tuple[int, ...]
    initial: float


def names() -> tuple[str, ...]:
    """Names of all routing algorithms."""
    return typing.get_args(RoutingConfig.model_fields["algorithm"].annotation)


def get(name: str) -> ModuleType:
    """The module of an algorithm; imports TensorFlow."""
    if name not in names():
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")
