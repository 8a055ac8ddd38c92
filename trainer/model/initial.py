"""Seeds of initial values: a function of the run's seed and the layer's name, whatever else is built."""

from __future__ import annotations

import hashlib

import keras

from trainer.config import Precision

POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def layer_seed(seed: int, name: str) -> int:
    """A 31-bit seed for the layer ``name``."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little") >> 1


def policy(precision: Precision) -> str:
    """Keras's name for a precision: half precisions keep their variables in float32."""
    return POLICIES.get(precision, precision)


def he_normal(seed: int, name: str) -> keras.initializers.Initializer:
    """For layers followed by a ReLU (He et al. 2015)."""
    return keras.initializers.HeNormal(seed=layer_seed(seed, name))


def glorot(seed: int, name: str) -> keras.initializers.Initializer:
    """For layers without a ReLU (Glorot and Bengio 2010)."""
    return keras.initializers.GlorotUniform(seed=layer_seed(seed, name))
