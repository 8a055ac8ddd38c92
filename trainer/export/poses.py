"""Nonlinearities of poses, as in ``model/squash.py`` and ``model/residual.py``, without their care for huge numbers.

Axes: the pose axis is the last; all others are kept.
"""

from __future__ import annotations

from keras import KerasTensor, ops

from trainer.model import residual
from trainer.model.squash import EPSILON, VARIANCE_EPSILON


def squash(s: KerasTensor) -> KerasTensor:
    """v = |s|^2 / (1 + |s|^2) * s / |s| (Sabour et al. 2017, equation 1)."""
    square = ops.sum(s * s, axis=-1, keepdims=True)
    return square / (1.0 + square) * s / ops.sqrt(square + EPSILON)


def squash_exponential(s: KerasTensor) -> KerasTensor:
    """v = (1 - 1 / e^|s|) * s / |s| (Mazzia et al. 2021, section 3)."""
    length = lengths(s)[..., None]
    return (1.0 - ops.exp(-length)) * s / length


def unsquash(v: KerasTensor) -> KerasTensor:
    """s with squash(s) = v."""
    length = lengths(v)[..., None]
    away = ops.maximum(1.0 - length, 0.0)
    return v / ops.sqrt((length + residual.EPSILON) * (away + residual.EPSILON))


def lengths(poses: KerasTensor) -> KerasTensor:
    """[..., Q] -> [...]"""
    return ops.sqrt(ops.sum(poses * poses, axis=-1) + EPSILON)


def direction(poses: KerasTensor) -> KerasTensor:
    """Vectors over their lengths."""
    return poses / lengths(poses)[..., None]


def layer_norm(s: KerasTensor) -> KerasTensor:
    """(s - mean) / standard deviation (Ba et al. 2016, equation 4), without gain and shift."""
    centred = s - ops.mean(s, axis=-1, keepdims=True)
    variance = ops.mean(centred * centred, axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + VARIANCE_EPSILON)
