"""Tensors of a checkpoint into variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.errors import CheckpointError
from trainer.model.network import CapsNet

PREFIX = "weights/"
HEAD = tuple(f"{PREFIX}capsnet/{part}/" for part in ("class_capsules", "control", "decoder"))
"""What another number of classes changes."""


def weights_of(net: CapsNet) -> dict[str, tf.Variable]:
    """A network's variables by the names that they have in a checkpoint."""
    return {f"{PREFIX}{variable.path}": variable.value for variable in net.variables}


def assign(variables: Mapping[str, tf.Variable], tensors: Mapping[str, np.ndarray], source: Path) -> None:
    """Raises CheckpointError, and assigns nothing, where a tensor is missing or has another shape."""
    for name, variable in variables.items():
        if name not in tensors:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another model (see its config.json)")
        if tensors[name].shape != tuple(variable.shape):
            raise CheckpointError(
                f"{source}: {name} is {list(tensors[name].shape)}, this model has {variable.shape.as_list()}; "
                "another number of classes needs --new-head"
            )
    for name, variable in variables.items():
        variable.assign(tensors[name])
