"""A look against the network's own outputs, and its gradients against finite differences.

Axes: N records, J classes, Q class pose size, S steps.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.summaries.boards import RECORDS, batch_of, built, configured
from trainer import losses
from trainer.model.routing import Capsules
from trainer.summaries.look import REACH, STEPS, make_look

DEEP = {
    "model__layers__types": "3",
    "model__layers__poses": "4",
    "model__layers__kernels": "1",
    "model__layers__strides": "1",
}


def test_a_pose_is_varied_number_by_number() -> None:
    config = configured(train__precision="float64")
    net, batch = built(config), batch_of(config)
    images, labels = tf.cast(batch["image"], tf.float64), batch["label"]
    varied = make_look(config, net)(images, labels).varied_QSHWC.numpy()
    outputs = net(images[:1])
    poses_JQ, winner = outputs.poses_BJQ.numpy()[0], int(np.argmax(outputs.class_scores_BJ[0]))
    assert varied.shape == (6, STEPS, 12, 12, 1)
    for number in range(6):
        for step, move in enumerate(np.linspace(-REACH, REACH, STEPS)):
            moved_JQ = poses_JQ.copy()
            moved_JQ[winner, number] += move
            expected = net.decoder(tf.constant(moved_JQ[None]), tf.constant([winner]))[0]
            np.testing.assert_allclose(varied[number, step], expected, rtol=1e-9)
    np.testing.assert_allclose(varied[:, STEPS // 2], np.repeat(outputs.reconstruction_BHWC, 6, axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    "fields", [{}, DEEP, {"model__routing__algorithm": "em", "model__primary__activation": "sigmoid"}]
)
def test_the_gradient_through_routing_is_that_of_finite_differences(fields: dict[str, str]) -> None:
    config = configured(train__precision="float64", **fields)
    net, batch = built(config), batch_of(config)
    images, labels = tf.cast(batch["image"], tf.float64), batch["label"]
    look = make_look(config, net)(images, labels)
    children, whole = net.primary(net.stem(images)), net(images)

    @tf.function
    def parents_of(poses_NIP: tf.Tensor, activations_NI: tf.Tensor) -> Capsules:
        return net.route(children._replace(poses_BNP=poses_NIP, activations_BN=activations_NI))[0]

    def losses_MN(poses_MNIP: np.ndarray, activations_MNI: np.ndarray) -> np.ndarray:
        """Of M variants of the children in one call: no record's loss depends on another's."""
        variants, records, *_ = poses_MNIP.shape
        parents = parents_of(poses_MNIP.reshape(-1, *poses_MNIP.shape[2:]), activations_MNI.reshape(-1, I))
        outputs = whole._replace(
            class_scores_BJ=parents.activations_BN, poses_BJQ=parents.poses_BNP, reconstruction_BHWC=None
        )
        terms = losses.loss_terms(config.loss, outputs, np.tile(images, (variants, 1, 1, 1)), np.tile(labels, variants))
        return terms["margin"].numpy().reshape(variants, records)

    poses_NIP, activations_NI = children.poses_BNP.numpy(), children.activations_BN.numpy()
    I, P = poses_NIP.shape[1:]  # noqa: E741
    step = 1e-6

    def square_N(moves_MIP: np.ndarray, moves_MI: np.ndarray) -> np.ndarray:
        sides = [
            losses_MN(poses_NIP + sign * moves_MIP[:, None], activations_NI + sign * moves_MI[:, None])
            for sign in (-1, 1)
        ]
        return np.sum(((sides[1] - sides[0]) / (2 * step)) ** 2, axis=0)

    total_N = square_N(step * np.eye(I * P).reshape(-1, I, P), np.zeros((I * P, I)))
    if "em" in fields.values():
        total_N += square_N(np.zeros((I, I, P)), step * np.eye(I))
    first = next(iter(look.layers.values()))
    # differences of 1e-6 leave an error of its square, and rounding of 1e-16 over 1e-6
    assert float(first.child_gradient) == pytest.approx(np.sqrt(total_N).mean(), rel=1e-5)
    assert float(first.child_gradient) > 0


def test_a_gradient_arrives_at_every_layer() -> None:
    config = configured(**DEEP)
    batch = batch_of(config)
    look = make_look(config, built(config))(batch["image"][:RECORDS], batch["label"][:RECORDS])
    assert list(look.layers) == ["layer_0", "class_capsules"]
    for layer in look.layers.values():
        assert float(layer.child_gradient) > 0
        assert float(layer.parent_gradient) > 0
    # what leaves one layer is what arrives at the next
    below, above = look.layers["layer_0"], look.layers["class_capsules"]
    assert float(below.parent_gradient) == pytest.approx(float(above.child_gradient), rel=1e-5)


def test_a_control_has_nothing_to_route() -> None:
    config = configured(model__head__kind="conv_parameters")
    batch = batch_of(config)
    look = make_look(config, built(config))(batch["image"], batch["label"])
    assert look.layers == {}
    assert np.isfinite(look.loss)
