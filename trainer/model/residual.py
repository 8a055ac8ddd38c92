"""Residual connections between capsule layers (after He et al. 2016): the identity stays the identity at any depth.

Axes: B batch, N capsules, P pose size.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.model.routing import Capsules
from trainer.model.squash import at_least_float32, lengths, squash

EPSILON = 1e-6  # keeps the slope of the inverse squash below 1e3 at length 0, and finite at length 1


def unsquash(poses: tf.Tensor) -> tf.Tensor:
    """The preactivation s with squash(s) = v: |s| = sqrt(|v| / (1 - |v|)). [..., P] in at least float32."""
    poses = at_least_float32(poses)
    length = lengths(poses)[..., tf.newaxis]
    away = tf.maximum(1.0 - length, 0.0)  # rounding may put a length of 1 a little above it
    return poses / tf.sqrt((length + EPSILON) * (away + EPSILON))


def add(inputs: Capsules, routed: Capsules, *, by_length: bool) -> Capsules:
    """Input and routed capsules of the same grid, types and pose size together.

    Activated by length: v = squash(unsquash(u) + unsquash(v)), a sum of preactivations, so that lengths stay below 1,
    and a layer that routes nothing passes its input on. Squashing u + v itself would shorten u in every layer.

    With activations of their own: poses are added, and the activation is the mean of both, so that it stays in 0..1
    and does not saturate with depth.
    """
    if by_length:
        poses_BNP = squash(unsquash(inputs.poses_BNP) + unsquash(routed.poses_BNP))
        return Capsules(poses_BNP, lengths(poses_BNP))
    return Capsules(
        at_least_float32(inputs.poses_BNP) + routed.poses_BNP,
        0.5 * (inputs.activations_BN + routed.activations_BN),
    )
