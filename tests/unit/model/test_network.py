"""The assembled network. Axes: B batch, H W image, C channels, J classes, Q class pose size."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ModelConfig
from trainer.model.network import CapsNet, build

SINGLE = 1e-5  # float32: the same sums in another order, through three softmaxes
TREE = {
    "image_size": 12,
    "channels": 3,
    "classes": 4,
    "stem": {"kind": "residual", "channels": [8, 16], "strides": [1, 2]},
    "primary": {"types": 4, "pose": 4, "kernel": 3, "stride": 1},
    "head": {"pose": 6},
    "decoder": {"hidden": [16]},
}


def config(**changes) -> ModelConfig:
    return ModelConfig.model_validate(TREE | changes)


def images(records: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((records, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> CapsNet:
    return build(config(), seed=1)


def test_outputs(net: CapsNet) -> None:
    outputs = net(images())
    assert outputs.class_scores_BJ.shape == (3, 4)
    assert outputs.poses_BJQ.shape == (3, 4, 6)
    assert outputs.reconstruction_BHWC.shape == (3, 12, 12, 3)
    assert outputs.traces == {}
    np.testing.assert_allclose(outputs.class_scores_BJ, np.linalg.norm(outputs.poses_BJQ, axis=-1), rtol=1e-6)
    assert 0.0 <= np.min(outputs.reconstruction_BHWC) <= np.max(outputs.reconstruction_BHWC) <= 1.0


def test_decoder_sees_the_labels_capsule_or_else_the_longest(net: CapsNet) -> None:
    free = net(images())
    longest_B = np.argmax(free.class_scores_BJ, axis=-1)
    np.testing.assert_array_equal(net(images(), longest_B).reconstruction_BHWC, free.reconstruction_BHWC)
    other = net(images(), (longest_B + 1) % 4)
    assert np.all(np.max(np.abs(other.reconstruction_BHWC - free.reconstruction_BHWC), axis=(1, 2, 3)) > 1e-4)
    np.testing.assert_array_equal(other.class_scores_BJ, free.class_scores_BJ)


def test_reconstruction_error_reaches_one_class_capsule_only(net: CapsNet) -> None:
    poses_BJQ = net(images()).poses_BJQ
    with tf.GradientTape() as tape:
        tape.watch(poses_BJQ)
        total = tf.reduce_sum(net.decoder(poses_BJQ, tf.constant([0, 1, 2])))
    gradient_BJQ = tape.gradient(total, poses_BJQ).numpy()
    reached_BJ = np.any(gradient_BJQ != 0.0, axis=-1)
    np.testing.assert_array_equal(reached_BJ, np.eye(4, dtype=bool)[:3])


def test_trace_is_by_layer_and_leaves_outputs(net: CapsNet) -> None:
    plain, traced = net(images()), net(images(), trace=True, coupling_records=2)
    assert list(traced.traces) == ["class_capsules"]
    assert traced.traces["class_capsules"].coupling_RNIJ.shape == (3, 2, 64, 4)
    np.testing.assert_allclose(traced.poses_BJQ, plain.poses_BJQ, rtol=SINGLE, atol=SINGLE)


@pytest.mark.parametrize("kind", ["residual", "conv"])
def test_a_record_does_not_depend_on_the_others(kind: str) -> None:
    stem = TREE["stem"] | {"kind": kind, "kernel": 3, "padding": "same", "norm": "group"}
    net = build(config(stem=stem))
    together, alone = net(images()), net(images()[:1])
    np.testing.assert_allclose(alone.poses_BJQ[0], together.poses_BJQ[0], rtol=SINGLE, atol=SINGLE)


def test_weights_are_a_function_of_seed_and_layer(net: CapsNet) -> None:
    tf.random.set_seed(3)  # must not matter
    for variable, again in zip(net.variables, build(config(), seed=1).variables, strict=True):
        np.testing.assert_array_equal(variable, again)
    other = build(config(), seed=2)
    same = {v.path: np.array_equal(v, w) for v, w in zip(net.variables, other.variables, strict=True)}
    assert not any(equal for path, equal in same.items() if path.endswith(("kernel", "transform")))
    # another part of the network does not move the draws of this one
    headless = build(config(decoder={"hidden": []}), seed=1)
    np.testing.assert_array_equal(headless.class_capsules.transform_parts[0], net.class_capsules.transform_parts[0])
    kernels = [v.numpy().ravel()[:8] for v in net.variables if v.path.endswith("kernel")]
    assert len(np.unique(np.round(np.concatenate(kernels), 7))) > 8 * (len(kernels) - 1)


def test_paths_are_unique_and_the_same_in_every_build(net: CapsNet) -> None:
    paths = [variable.path for variable in net.variables]
    assert len(set(paths)) == len(paths)
    assert paths == [variable.path for variable in build(config()).variables]
    assert "capsnet/stem/stage_1_block_0/shortcut/kernel" in paths
    assert "capsnet/class_capsules/transform" in paths


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16"])
def test_precision(precision: str) -> None:
    net = build(config(), precision=precision)
    wide = tf.float64 if precision == "float64" else tf.float32
    assert {variable.dtype for variable in net.variables} == {wide.name}
    for scale in (0.0, 1.0, 255.0):
        with tf.GradientTape() as tape:
            outputs = net(images() * scale, np.array([0, 1, 2]))
            total = tf.reduce_sum(outputs.class_scores_BJ) + tf.reduce_mean(outputs.reconstruction_BHWC)
        gradients = tape.gradient(total, net.trainable_variables)
        assert outputs.class_scores_BJ.dtype == outputs.reconstruction_BHWC.dtype == wide
        assert np.all(np.isfinite(outputs.poses_BJQ))
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients), scale


def test_batch_size_may_be_unknown(net: CapsNet) -> None:
    call = tf.function(lambda x: net(x).class_scores_BJ, input_signature=[tf.TensorSpec([None, 12, 12, 3])])
    for records in (1, 3):
        np.testing.assert_allclose(
            call(images(records)), net(images(records)).class_scores_BJ, rtol=SINGLE, atol=SINGLE
        )


def test_several_objects_are_decoded_each_by_itself(net: CapsNet) -> None:
    labels_B2 = tf.constant([[0, 3], [2, 1], [1, 2]])
    both = net(images(), labels_B2)
    assert both.reconstruction_BHWC.shape == (3, 2, 12, 12, 3)
    for number in range(2):
        one = net(images(), labels_B2[:, number])
        np.testing.assert_allclose(both.reconstruction_BHWC[:, number], one.reconstruction_BHWC, rtol=SINGLE)
    free = net(images(), objects=2)
    longest_B2 = np.argsort(-free.class_scores_BJ.numpy(), axis=-1)[:, :2]
    np.testing.assert_array_equal(net(images(), longest_B2).reconstruction_BHWC, free.reconstruction_BHWC)
