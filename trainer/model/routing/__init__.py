"""Routing algorithms, one a file, behind one interface.

An algorithm is a module of this package with the name that it has in ``RoutingConfig.algorithm``, and with

    weights(config, sizes) -> dict[str, WeightSpec]
        what it has besides the transform; its keys are the keys of ``extra`` below
    route(children, transform, extra, config, *, trace=False, coupling_records=0)
        -> (parents, RoutingTrace | None)
    ACTIVATED_BY_LENGTH
        whether a parent's pose is squashed and its activation is the length of it
    multiply_adds(config, sizes) -> int
        what it is defined to compute for one record; what ``products`` knows need not say it again

To add one: write the file, and add its name to ``RoutingConfig.algorithm``. Importing this package does not
import TensorFlow.

Axes: B batch, N capsules of a layer, I children, T transforms (T = I, or the child types where I = positions x T),
J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import typing
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from trainer.config import RoutingConfig

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.model.routing.fan import Fan


class Capsules(NamedTuple):
    """The capsules of one layer. An activation says that the capsule's entity is present, 0..1.

    Where an algorithm has no activations of its own, they are the lengths of the poses. Those of ``inverted`` are
    logits, without bounds.
    """

    poses_BNP: tf.Tensor
    activations_BN: tf.Tensor  # in at least float32


class Transform(NamedTuple):
    """How children predict parents: child i has the transform i mod T.

    ``parts`` are [T_k, P, J, Q] with sum T_k = T: a large transform is several variables, so that its gradient is
    never held twice. P is the first matrix axis, so that the product that makes all votes of a child needs no
    transposition.
    """

    parts_TPJQ: tuple[tf.Tensor, ...]
    fan: Fan | None = None  # of a convolutional layer, whose batch is records x windows: how windows share children

    @property
    def transforms(self) -> int:
        """T."""
        return sum(part.shape[0] for part in self.parts_TPJQ)

    @property
    def parents(self) -> int:
        """J."""
        return int(self.parts_TPJQ[0].shape[2])

    @property
    def pose(self) -> int:
        """Q."""
        return int(self.parts_TPJQ[0].shape[3])


class LayerSizes(NamedTuple):
    """Static sizes of a capsule layer."""

    children: int  # I
    transforms: int  # T
    parents: int  # J
    child_pose: int  # P
    pose: int  # Q
    rows: int = 1  # of poses that are matrices, row by row; 1: vectors

    @property
    def transform_shape(self) -> tuple[int, int, int, int]:
        """Of what is learned: matrices M are multiplied from the right, M W, so that W has the size of a row."""
        return self.transforms, self.child_pose // self.rows, self.parents, self.pose // self.rows


class WeightSpec(NamedTuple):
    """A weight of a routing algorithm: ``initial``, plus a truncated normal of ``stddev`` where not 0.

    One that is not trainable is drawn from the layer's seed whenever the layer is made: it is no parameter, and no
    checkpoint holds it.
    """

    shape: tuple[int, ...]
    initial: float = 0.0
    stddev: float = 0.0
    trainable: bool = True


def names() -> tuple[str, ...]:
    """Names of all routing algorithms."""
    return typing.get_args(RoutingConfig.model_fields["algorithm"].annotation)


def get(name: str) -> ModuleType:
    """The module of an algorithm; imports TensorFlow."""
    if name not in names():
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")
