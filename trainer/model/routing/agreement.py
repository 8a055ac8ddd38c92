"""The small pieces of routing by agreement that all its implementations share.

Axes: B batch, I children, J parents, Q parent pose size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing.fan import Fan
from trainer.model.squash import EPSILON, at_least_float32, squash


class Rule(NamedTuple):
    """What changes the result of routing by agreement.

    ``cumulative``: a vote's logit is its product with the sum of what its parent said in all iterations before, as in
    dynamic routing, or with the last alone. ``fan``: which children of a convolutional layer's windows there are, for
    what is seen of routing.
    """

    iterations: int
    leaky: bool
    stop_gradient: bool = False
    cosine: bool = False
    temperature: float = 1.0
    cumulative: bool = True
    fan: Fan | None = None

    @staticmethod
    def of(config: RoutingConfig, fan: Fan | None) -> Rule:
        rule = Rule(config.iterations, config.leaky, config.stop_gradient, config.by_cosine, config.temperature)
        return rule._replace(fan=fan)


def couplings(routing_logits: tf.Tensor, leaky: bool) -> tf.Tensor:
    """c_ij = softmax of b_ij over parents, the last axis (Sabour et al. 2017, equation 3).

    ``leaky``: a further parent with logit 0, 'none of the above' (section 6), takes its share and is left out,
    so that couplings sum to less than 1.
    """
    if not leaky:
        return tf.nn.softmax(routing_logits, axis=-1)
    padded = tf.pad(routing_logits, [[0, 0]] * (routing_logits.shape.rank - 1) + [[1, 0]])
    return tf.nn.softmax(padded, axis=-1)[..., 1:]


def logits_gradient(coupling: tf.Tensor, coupling_gradient: tf.Tensor) -> tf.Tensor:
    """Gradient of the logits from that of their couplings; the same with and without ``leaky``."""
    mean = tf.reduce_sum(coupling * coupling_gradient, axis=-1, keepdims=True)
    return coupling * (coupling_gradient - mean)


def direction(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors over their lengths; 0 at 0."""
    return vectors * tf.math.rsqrt(tf.reduce_sum(vectors * vectors, axis=-1, keepdims=True) + EPSILON)


def direction_gradient(vectors: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Gradient of vectors from that of their directions: the part across each, over its length."""
    inverse = tf.math.rsqrt(tf.reduce_sum(vectors * vectors, axis=-1, keepdims=True) + EPSILON)
    unit = vectors * inverse
    return inverse * (gradient - unit * tf.reduce_sum(unit * gradient, axis=-1, keepdims=True))


def pose_and_said(
    preactivation_BJQ: tf.Tensor, weights: Sequence[tf.Tensor], rule: Rule
) -> tuple[tf.Tensor, tf.Tensor]:
    """v_j, and what it adds to the vector whose product with a vote is the vote's logit.

    b_ij <- b_ij + u_hat . v_j at each iteration (procedure 1, line 7) is u_hat . (sum of v_j so far). By cosine it is
    the sum of v_j / |v_j|, with votes of length 1.
    """
    for bias_JQ in weights:
        preactivation_BJQ += tf.cast(bias_JQ, preactivation_BJQ.dtype)
    pose_BJQ = squash(preactivation_BJQ)  # equation 1
    said_BJQ = direction(pose_BJQ) if rule.cosine else pose_BJQ
    return pose_BJQ, said_BJQ if rule.temperature == 1 else said_BJQ / rule.temperature


def wide(votes: tf.Tensor, cosine: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Votes in at least float32, and what they are compared by: themselves, or their directions."""
    votes = at_least_float32(votes)
    return votes, direction(votes) if cosine else votes
