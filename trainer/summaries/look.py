"""A look at a network: a forward and backward pass over a few records, watched, with no collective in it.

It is rank 0's own: the step, which all ranks must run alike, knows nothing of it. It reads weights and changes none.

Axes: N observed records, H W image, C channels, J classes, Q class pose size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer import losses
from trainer.config import RunConfig
from trainer.model import observed, routing
from trainer.model.capsules import CapsuleLayer
from trainer.model.network import CapsNet, Outputs, longest
from trainer.model.observed import Observed
from trainer.model.routing import Capsules
from trainer.model.routing.trace import RoutingTrace

STEPS, REACH = 11, 0.25
"""A number of a pose is varied in so many steps up to this far each way (Sabour et al. 2017, section 5.1)."""


class LayerLook(NamedTuple):
    """One capsule layer."""

    trace: RoutingTrace
    observed: Observed
    child_gradient: tf.Tensor
    parent_gradient: tf.Tensor


class Look(NamedTuple):
    outputs: Outputs  # without traces
    layers: dict[str, LayerLook]
    loss: tf.Tensor  # mean class loss
    varied_QSHWC: tf.Tensor | None  # reconstructions of the first image, a row for each number of its longest capsule


def make_look(config: RunConfig, network: CapsNet) -> Callable[[tf.Tensor, tf.Tensor], Look]:
    """A compiled function of (images_NHWC, labels_N), or labels [N, 2] where two things overlap."""
    layers = {layer.name: layer for layer in network.layers if isinstance(layer, CapsuleLayer)}

    @tf.function(autograph=False)  # it warns of the configuration, which it cannot convert
    def look(images_NHWC: tf.Tensor, labels_N: tf.Tensor) -> Look:
        with tf.GradientTape() as tape:
            outputs = network(
                images_NHWC,
                labels_N,
                trace=True,
                coupling_records=min(config.log.coupling_records, images_NHWC.shape[0]),
            )
            bare = outputs._replace(reconstruction_BHWC=None)  # the loss of the class scores alone
            loss_N = losses.loss_terms(config.loss, bare, images_NHWC, labels_N)[config.loss.kind]
        ends = {
            name: (_sources(layers[name], t.children), _sources(layers[name], t.parents))
            for name, t in outputs.traces.items()
        }
        gradients = tape.gradient(loss_N, ends, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        seen = {
            name: LayerLook(
                trace,
                observed.observe(layers[name], trace),
                _mean_norm(gradients[name][0]),
                _mean_norm(gradients[name][1]),
            )
            for name, trace in outputs.traces.items()
        }
        return Look(outputs._replace(traces={}), seen, tf.reduce_mean(loss_N), _varied(network, outputs))

    return look


def _sources(layer: CapsuleLayer, capsules: Capsules) -> list[tf.Tensor]:
    """What the gradient of capsules is of: where activations are lengths, that of poses holds theirs."""
    if routing.get(layer.routing.algorithm).ACTIVATED_BY_LENGTH:
        return [capsules.poses_BNP]
    return list(capsules)


def _mean_norm(gradients: list[tf.Tensor]) -> tf.Tensor:
    """Of a record's capsules together, the mean over records."""
    square_N = tf.add_n([tf.reduce_sum(tf.square(g), axis=list(range(1, g.shape.rank))) for g in gradients])
    return tf.reduce_mean(tf.sqrt(square_N))


def _varied(network: CapsNet, outputs: Outputs) -> tf.Tensor | None:
    if network.decoder is None:
        return None
    _, classes, pose = outputs.poses_BJQ.shape
    winner = longest(outputs.class_scores_BJ[:1], 1)[0]
    moves_S = tf.constant(np.linspace(-REACH, REACH, STEPS), outputs.poses_BJQ.dtype)
    moves_QSQ = tf.einsum("s,qp->qsp", moves_S, tf.eye(pose, dtype=moves_S.dtype))
    only_J = tf.one_hot(winner, classes, dtype=outputs.poses_BJQ.dtype)
    moved_QSJQ = outputs.poses_BJQ[0] + moves_QSQ[:, :, tf.newaxis] * only_J[:, tf.newaxis]
    made = network.decoder(tf.reshape(moved_QSJQ, [-1, classes, pose]), tf.repeat(winner, pose * STEPS))
    return tf.reshape(made, [pose, STEPS, *network.image_shape])
