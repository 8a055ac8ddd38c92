"""Layers that iterate together, against loops from the paper and against routing in turn.

Axes: B batch, N capsules of a layer, I children, J parents, P/Q pose sizes, R iterations.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.model import oracles_family
from trainer.config import ModelConfig
from trainer.model.network import CapsNet, build
from trainer.model.routing import LayerSizes, products

EXACT = 1e-9  # float64, through a few softmaxes and normalisations
B, R = 2, 3
DEEP = {"types": [4, 3], "poses": [4, 5], "kernels": [3, 1], "strides": [1, 1]}  # windows of all children


def net(layers: dict | None, *, precision: str = "float64", **routing) -> CapsNet:
    tree = {
        "image_size": 12,
        "classes": 3,
        "stem": {"channels": [8], "kernel": 3, "strides": [2]},
        "primary": {"types": 2, "pose": 4, "kernel": 3, "stride": 1, "nonlinearity": "layer_norm"},
        "layers": layers or {},
        "head": {"pose": 4},
        "decoder": {"hidden": [5]},
        "routing": {"algorithm": "inverted", "iterations": R, "concurrent": True} | routing,
    }
    made = build(ModelConfig.model_validate(tree), precision=precision, seed=1)
    rng = np.random.default_rng(0)
    for layer in [*made.capsule_layers, made.class_capsules]:
        for name in ("gain", "shift"):
            layer.extra[name].assign(rng.normal(size=layer.pose))
        layer.transform_parts[0].assign(rng.normal(size=layer.transform_parts[0].shape))
    return made


def images(dtype=np.float64) -> tf.Tensor:
    return tf.constant(np.random.default_rng(2).random((B, 12, 12, 1)).astype(dtype))


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_is_the_papers_procedure(iterations: int) -> None:
    made = net(DEEP, iterations=iterations)
    assert made.capsule_layers[0].fan.windows == 1  # a window of all children: a fully connected layer
    poses_BIP = made.primary(made.stem(images())).poses_BNP.numpy()
    layers = [
        (layer.transform_parts[0].numpy(), layer.extra["gain"].numpy(), layer.extra["shift"].numpy())
        for layer in [*made.capsule_layers, made.class_capsules]
    ]
    outputs = made(images(), trace=True, coupling_records=B)
    for n in range(B):
        poses_JQ, couplings = oracles_family.concurrent(poses_BIP[n], layers, iterations)
        np.testing.assert_allclose(outputs.poses_BJQ[n], poses_JQ, rtol=EXACT)
        for name, expected in zip(("layer_0", "layer_1", "class_capsules"), couplings, strict=True):
            np.testing.assert_allclose(outputs.traces[name].coupling_RNIJ[:, n], expected, rtol=EXACT)
    trace = outputs.traces["class_capsules"]
    assert trace.entropy_R.shape == trace.effective_parents_R.shape == (iterations,)
    np.testing.assert_array_equal(trace.parents.activations_BN, outputs.class_scores_BJ)
    readout = made.class_capsules.extra
    expected_BJ = outputs.poses_BJQ.numpy() @ readout["readout"].numpy() + readout["readout_bias"].numpy()
    np.testing.assert_allclose(outputs.class_scores_BJ, expected_BJ, rtol=EXACT)


def test_one_layer_is_the_same_as_in_turn_and_several_are_not() -> None:
    together, in_turn = net(None)(images(), trace=True), net(None, concurrent=False)(images(), trace=True)
    np.testing.assert_allclose(together.class_scores_BJ, in_turn.class_scores_BJ, rtol=EXACT)
    flat = [tf.nest.flatten(outputs.traces["class_capsules"]) for outputs in (together, in_turn)]
    for ours, theirs in zip(*flat, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=EXACT)
    together, in_turn = net(DEEP)(images()), net(DEEP, concurrent=False)(images())
    assert np.max(np.abs(together.class_scores_BJ - in_turn.class_scores_BJ)) > 1e-2


def test_an_iteration_from_where_one_ended_is_the_next() -> None:
    """In windows as well, where parents to start from are cut as their windows are."""
    made = net({**DEEP, "kernels": [2, 1]})
    layer = made.capsule_layers[0]
    assert layer.fan.windows == 2
    children = made.primary(made.stem(images()))
    once, twice = (layer.routing.model_copy(update={"iterations": iterations}) for iterations in (1, 2))
    first, _ = layer(children, config=once)
    second, _ = layer(children, config=once, start=first)
    both, _ = layer(children, config=twice)
    np.testing.assert_allclose(second.poses_BNP, both.poses_BNP, rtol=EXACT)
    np.testing.assert_allclose(second.activations_BN, both.activations_BN, rtol=EXACT)


def test_every_weight_that_matters_gets_a_gradient() -> None:
    made = net(DEEP)
    with tf.GradientTape() as tape:
        outputs = made(images(), np.array([0, 1]))
        total = tf.reduce_sum(outputs.class_scores_BJ**2) + tf.reduce_sum(outputs.reconstruction_BHWC**2)
    variables = made.trainable_variables
    found = tape.gradient(total, [v.value for v in variables])
    without = {v.path for v, g in zip(variables, found, strict=True) if g is None}
    unread = {f"capsnet/layer_{n}/{name}" for n in (0, 1) for name in ("readout", "readout_bias")}
    assert without <= unread  # activations of layers below the class capsules are only looked at
    for variable, gradient in zip(variables, found, strict=True):
        assert variable.path in unread or np.any(gradient != 0.0), variable.path


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_activations_stay_in_float32_between_layers(precision: str) -> None:
    traces = net(DEEP, precision=precision, concurrent=False)(images(np.float32), trace=True).traces
    for name in ("layer_0", "layer_1", "class_capsules"):
        assert traces[name].children.activations_BN.dtype == tf.float32
    rounded = tf.cast(tf.cast(traces["layer_1"].children.activations_BN, precision), tf.float32)
    assert np.any(rounded != traces["layer_1"].children.activations_BN)


def test_residual_connections_are_refused() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        net({**DEEP, "residual": True})


def test_votes_are_counted_in_each_iteration() -> None:
    config = net(DEEP).class_capsules.routing
    sizes = LayerSizes(6, 6, 3, 2, 4)
    together = products.multiply_adds(config, sizes)
    in_turn = products.multiply_adds(config.model_copy(update={"concurrent": False}), sizes)
    assert together - in_turn == (R - 1) * (6 * 2 * 3 * 4 + 3 * 4)
