"""Tensors of a checkpoint into variables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer import optimizer
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.errors import CheckpointError
from trainer.model import network, parts
from trainer.model.network import CapsNet

PREFIX, AVERAGE = "weights/", "average/"
HEAD = tuple(f"{PREFIX}capsnet/{part}/" for part in ("class_capsules", "control", "decoder"))
"""What another number of classes changes."""


def weights_of(net: CapsNet) -> dict[str, tf.Variable]:
    """A network's variables by the names that they have in a checkpoint."""
    return {f"{PREFIX}{variable.path}": variable.value for variable in net.variables}


def layer_of(path: str) -> str:
    """The layer that a variable belongs to, from its path: 'stem/conv_0', 'primary', 'class_capsules', ..."""
    parts = path.split("/")[1:-1]
    return "/".join(parts[:2] if parts[0] in ("stem", "decoder") else parts[:1])


def norms_by_layer(net: CapsNet) -> dict[str, float]:
    """The norm of all trainable weights of each layer."""
    squares: dict[str, float] = {}
    for variable in net.trainable_variables:
        layer = layer_of(variable.path)
        squares[layer] = squares.get(layer, 0.0) + float(np.sum(np.square(variable.numpy(), dtype=np.float64)))
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def averages_of(net: CapsNet, update: keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """The means of the weights that an optimizer keeps, if any, by the names that they have in a checkpoint."""
    means = optimizer.averages(update, net.trainable_variables)
    return {f"{AVERAGE}{path}": mean.value for path, mean in means.items()}


def tested(found: Checkpoint) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint, with the means of weights, where there are any, in the place of these."""
    means = {name: tensor for name, tensor in found.tensors.items() if name.startswith(AVERAGE)}
    return {**found.tensors, **{PREFIX + name.removeprefix(AVERAGE): tensor for name, tensor in means.items()}}


def take(net: CapsNet, found: Checkpoint, *, new_head: bool) -> None:
    """The weights that tests of another run saw; with ``new_head`` not those of HEAD.

    Raises:
        CheckpointError: they are another model's.
    """
    taken = weights_of(net)
    if new_head:
        taken = {name: value for name, value in taken.items() if not name.startswith(HEAD)}
    assign(taken, tested(found), found.path)


def network_of(config: RunConfig, found: Checkpoint) -> CapsNet:
    """The network of a checkpoint, with the weights that tests saw.

    Raises:
        CheckpointError: they are another model's.
    """
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    assign(weights_of(net), tested(found), found.path)
    return net


def tensors_of(variables: Mapping[str, tf.Variable]) -> dict[str, np.ndarray]:
    """Copies of variables as a checkpoint holds them: the parts of a transform as one tensor."""
    return {
        whole: np.array(variables[names[0]].numpy())
        if len(names) == 1
        else np.concatenate([variables[name].numpy() for name in names])
        for whole, names in parts.joined(variables).items()
    }


def assign(variables: Mapping[str, tf.Variable], tensors: Mapping[str, np.ndarray], source: Path) -> None:
    """Raises CheckpointError, and assigns nothing, where a tensor is missing or has another shape."""
    wholes = {whole: [variables[name] for name in names] for whole, names in parts.joined(variables).items()}
    for name, pieces in wholes.items():
        if name not in tensors:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another model (see its config.json)")
        shape = pieces[0].shape.as_list()
        if len(pieces) > 1:
            shape[0] = sum(piece.shape[0] for piece in pieces)
        if list(tensors[name].shape) != shape:
            raise CheckpointError(
                f"{source}: {name} is {list(tensors[name].shape)}, this model has {shape}; "
                "another number of classes needs --new-head"
            )
    for name, pieces in wholes.items():
        if len(pieces) == 1:
            pieces[0].assign(tensors[name])
            continue
        start = 0
        for piece in pieces:
            piece.assign(tensors[name][start : start + piece.shape[0]])
            start += piece.shape[0]
