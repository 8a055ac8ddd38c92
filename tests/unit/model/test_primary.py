"""Primary capsules that are grouped or normalised, and the stem's options that such networks have.

Axes: B batch, H W grid, C channels, I capsules, P pose size.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.model import oracles_family
from trainer.config import PrimaryConfig, StemConfig
from trainer.model.capsules import PrimaryCapsules
from trainer.model.stem import stem

EXACT = 1e-9  # float64, less the epsilon of lengths
B, SIDE, C = 3, 5, 6


def grouped(kernel: int, stride: int = 1, padding: str = "valid", dtype: str = "float64") -> PrimaryCapsules:
    config = PrimaryConfig(
        types=3,
        pose=2,
        kernel=kernel,
        stride=stride,
        padding=padding,
        grouped=True,
        nonlinearity="squash_exponential",
    )
    layer = PrimaryCapsules(config, seed=0, dtype=dtype)
    layer.build((None, SIDE, SIDE, C))
    layer.conv.bias.assign(np.random.default_rng(1).normal(size=C))
    return layer


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, SIDE, SIDE, C))


@pytest.mark.parametrize(("kernel", "stride"), [(SIDE, 1), (3, 1), (3, 2)])
def test_grouped_capsules_take_each_number_from_one_channel(kernel: int, stride: int) -> None:
    layer, features_BHWC = grouped(kernel, stride), features()
    weights_KKC, bias_C = layer.conv.kernel.numpy()[..., 0], layer.conv.bias.numpy()
    side = (SIDE - kernel) // stride + 1
    expected_BIP = np.zeros((B, side * side * 3, 2))
    for n, h, w, t in np.ndindex(B, side, side, 3):
        s = np.zeros(2)
        for p in range(2):
            c = 2 * t + p
            patch = features_BHWC[n, h * stride : h * stride + kernel, w * stride : w * stride + kernel, c]
            s[p] = np.sum(patch * weights_KKC[..., c]) + bias_C[c]
        expected_BIP[n, (h * side + w) * 3 + t] = oracles_family.squash_exponential(s)
    capsules = layer(tf.constant(features_BHWC))
    np.testing.assert_allclose(capsules.poses_BNP, expected_BIP, rtol=EXACT)
    np.testing.assert_allclose(capsules.activations_BN, np.linalg.norm(expected_BIP, axis=-1), rtol=EXACT)


def test_a_kernel_of_the_grids_size_is_the_convolution() -> None:
    """Outputs and gradients, at a batch of unknown size."""
    layer, features_BHWC = grouped(SIDE), features()
    weights_BP = np.random.default_rng(2).normal(size=(B, C))

    def by_convolution(features_BHWC: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(layer.conv.kernel)
        return tf.nn.depthwise_conv2d(features_BHWC, kernel, [1, 1, 1, 1], "VALID") + layer.conv.bias.value

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, C], tf.float64)])
    def by_layer(features_BHWC: tf.Tensor) -> tf.Tensor:
        return layer.conv(features_BHWC)

    results = []
    for forward in (by_convolution, by_layer):
        at = tf.constant(features_BHWC)
        with tf.GradientTape() as tape:
            tape.watch(at)
            out = forward(at)
            total = tf.reduce_sum(tf.reshape(out, [B, C]) * weights_BP)
        results.append([out, *tape.gradient(total, [at, layer.conv.kernel.value, layer.conv.bias.value])])
    for ours, theirs in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)  # the same sums in another order


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_kernel_of_the_grids_size_sums_in_float32(dtype: str) -> None:
    layer, exact = grouped(SIDE, dtype=dtype), grouped(SIDE, dtype="float32")
    for ours, theirs in zip(layer.variables, exact.variables, strict=True):
        theirs.assign(ours)
    features_BHWC = tf.constant(features(), tf.float32)
    unit = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}[dtype]
    # features, kernel, products and sums rounded once each, and not once a term
    np.testing.assert_allclose(layer(features_BHWC).poses_BNP, exact(features_BHWC).poses_BNP, atol=4 * unit)


def test_normalised_poses() -> None:
    layer = PrimaryCapsules(
        PrimaryConfig(types=3, pose=4, kernel=3, stride=2, nonlinearity="layer_norm"), seed=0, dtype="float64"
    )
    layer.build((None, SIDE, SIDE, C))
    rng = np.random.default_rng(3)
    layer.gain.assign(rng.normal(size=4))
    layer.shift.assign(rng.normal(size=4))
    features_BHWC = tf.constant(features())
    poses_XP = layer.conv(features_BHWC).numpy().reshape(-1, 4)
    expected_XP = [oracles_family.layer_norm(pose, layer.gain.numpy(), layer.shift.numpy()) for pose in poses_XP]
    np.testing.assert_allclose(layer(features_BHWC).poses_BNP, np.reshape(expected_XP, (B, 12, 4)), rtol=EXACT)


def test_activations_of_their_own() -> None:
    config = PrimaryConfig(types=3, pose=2, kernel=3, stride=2, nonlinearity="none", activation="sigmoid")
    layer = PrimaryCapsules(config, seed=0, dtype="float64")
    layer.build((None, SIDE, SIDE, C))
    features_BHWC = tf.constant(features())
    capsules = layer(features_BHWC)
    np.testing.assert_array_equal(capsules.poses_BNP, tf.reshape(layer.conv(features_BHWC), [B, 12, 2]))
    logits_BN = layer.activation_conv(features_BHWC).numpy().reshape(B, 12)  # types fastest, as the poses'
    np.testing.assert_allclose(capsules.activations_BN, 1.0 / (1.0 + np.exp(-logits_BN)), rtol=EXACT)
    kernels = [v.numpy().ravel()[:8] for v in layer.variables if v.path.endswith("kernel")]
    assert len(np.unique(np.concatenate(kernels))) == 16  # draws of their own


def test_stem_with_a_kernel_for_each_convolution_and_normalisation_last() -> None:
    config = StemConfig(channels=(4, 8), kernels=(3, 2), strides=(1, 2), norm="group_last", norm_groups=2)
    layer = stem(config, seed=0, dtype="float32")
    layer.build((None, 9, 9, 1))
    assert [v.shape[:2] for v in layer.variables if v.path.endswith("kernel")] == [(3, 3), (2, 2)]
    out_BHWC = layer(np.random.default_rng(4).random((B, 9, 9, 1)).astype(np.float32)).numpy()
    assert out_BHWC.shape == (B, 3, 3, 8)
    groups_BXG = out_BHWC.reshape(B, 9, 2, 4).swapaxes(2, 3).reshape(B, -1, 2)
    np.testing.assert_allclose(groups_BXG.mean(axis=1), 0.0, atol=1e-5)  # so that the ReLU was not the last


def test_kernels_that_do_not_fit_the_channels() -> None:
    with pytest.raises(ValueError, match="kernels has 1 values and channels 2"):
        StemConfig(channels=(4, 8), kernels=(3,), strides=(1, 2))
    with pytest.raises(ValueError, match=r"kernels\.1\n.*greater than or equal to 1"):
        StemConfig(channels=(4, 8), kernels=(3, 0), strides=(1, 2))
