"""Built-in Keras layers with the settings and weights of the network's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import KerasTensor

DTYPE = "float32"
"""Of an export, whatever a run was trained in: fast on every machine, and the weights of half precisions have it."""


@dataclass(frozen=True)
class Copies:
    """Makes the layers of a Keras model. ``placed``: the paths of the network's weights that one of them has."""

    one_1: KerasTensor  # [1.0]
    placed: set[str] = field(default_factory=set)

    def layer(self, original: keras.layers.Layer) -> keras.layers.Layer:
        """Keras's layer that ``original`` is, or is a faster form of."""
        kind: type[keras.layers.Layer] = next(
            base for base in type(original).__mro__ if base.__module__.startswith("keras.")
        )
        path = original.weights[0].path.rpartition("/")[0]
        copy = kind.from_config(original.get_config() | {"name": _name(path), "dtype": DTYPE})
        copy.build_from_config(original.get_build_config())
        copy.set_weights(original.get_weights())
        self.placed.update(weight.path for weight in original.weights)
        return copy

    def product(
        self,
        path: str,
        equation: str,
        input_shape: Sequence[int | None],
        output_shape: Sequence[int],
        parts: Sequence[keras.Variable | np.ndarray],
    ) -> keras.layers.Layer:
        """A layer that multiplies by a weight, whose parts are joined along the first axis.

        A part that is an array is a constant of the network, and not trained here either.
        """
        constant = isinstance(parts[0], np.ndarray)
        layer = keras.layers.EinsumDense(
            equation, tuple(output_shape), name=_name(path), dtype=DTYPE, trainable=not constant
        )
        layer.build(tuple(input_shape))
        layer.set_weights([np.concatenate([np.asarray(part) for part in parts])])
        self.placed.update(part.path for part in parts if not isinstance(part, np.ndarray))
        return layer

    def tensor(self, path: str, weight: keras.Variable | np.ndarray) -> KerasTensor:
        """A weight by itself, as a tensor [1, ...]: a Keras model holds weights in layers only, so times 1."""
        axes = "abcdefgh"[: len(weight.shape)]
        return self.product(path, f"z,{axes}->z{axes}", [None], weight.shape, [weight])(self.one_1)


def _name(path: str) -> str:
    return path.removeprefix("capsnet/").replace("/", "_")
