"""Axes: the last is the pose."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.model import oracles, oracles_family
from trainer.model.squash import layer_norm, lengths, squash, squash_exponential

EXACT = 1e-10  # float64, less the epsilon under the root (1e-12 against squared lengths of 1e-2 and more)
DIFFERENCE = 1e-7  # of a central difference with step 1e-5, times third derivatives of tens


def gradient_of(function, at, weights):
    at = tf.convert_to_tensor(at)
    with tf.GradientTape() as tape:
        tape.watch(at)
        total = tf.reduce_sum(function(at) * tf.cast(weights, function(at).dtype))
    return tape.gradient(total, at)


def test_squash_is_equation_1() -> None:
    s = np.random.default_rng(0).normal(size=(20, 5)) * np.logspace(-1, 2, 20)[:, None]
    np.testing.assert_allclose(squash(s), [oracles.squash(row) for row in s], rtol=EXACT)


def test_squash_exponential_is_its_equation() -> None:
    s = np.random.default_rng(0).normal(size=(20, 5)) * np.logspace(-1, 2, 20)[:, None]
    np.testing.assert_allclose(squash_exponential(s), [oracles_family.squash_exponential(row) for row in s], rtol=EXACT)


def test_layer_norm_is_its_equation() -> None:
    s = np.random.default_rng(0).normal(size=(20, 5)) * np.logspace(-3, 2, 20)[:, None]
    expected = [oracles_family.layer_norm(row, np.ones(5), np.zeros(5)) for row in s]
    np.testing.assert_allclose(layer_norm(s), expected, rtol=EXACT)


BOTH = [
    (squash, oracles.squash),
    (squash_exponential, oracles_family.squash_exponential),
    (layer_norm, lambda s: oracles_family.layer_norm(s, np.ones_like(s), np.zeros_like(s))),
]


@pytest.mark.parametrize(("function", "oracle"), BOTH)
def test_gradients_against_differences(function, oracle) -> None:
    rng = np.random.default_rng(1)
    for size in (0.3, 1.0, 3.0):
        s, weights = rng.normal(size=4) * size, rng.normal(size=4)
        expected = oracles.finite_difference(lambda x, w=weights: float(w @ oracle(x)), s)
        np.testing.assert_allclose(gradient_of(function, s, weights), expected, rtol=DIFFERENCE, atol=DIFFERENCE)


FINITE = [
    (dtype, size)
    for dtype in (tf.float32, tf.float64, tf.bfloat16, tf.float16)
    for size in (0.0, 1e-30, 1e-8, 1.0, 1e4, 1e30)
    if size <= float(dtype.max)
]


@pytest.mark.parametrize("function", [squash, squash_exponential, layer_norm])
@pytest.mark.parametrize(("dtype", "size"), FINITE)
def test_finite_for_every_size(dtype: tf.DType, size: float, function) -> None:
    s = tf.cast(tf.constant([[size, -size, size]], tf.float64), dtype)
    value, gradient = function(s), gradient_of(function, s, 1.0)
    assert value.dtype == (tf.float64 if dtype == tf.float64 else tf.float32)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(tf.cast(gradient, tf.float64)))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1.0])
def test_lengths_are_finite_for_every_pose(size: float) -> None:
    poses = tf.constant([[size, -size, 0.0]])
    assert np.all(np.isfinite(lengths(poses)))
    assert np.all(np.isfinite(gradient_of(lengths, poses, 1.0)))


def test_squash_at_zero_is_zero_with_zero_gradient() -> None:
    zero = tf.zeros([2, 3])
    np.testing.assert_array_equal(squash(zero), zero)
    np.testing.assert_array_equal(gradient_of(squash, zero, 1.0), zero)


def test_squash_exponential_at_zero_is_zero_with_slope_one() -> None:
    zero = tf.zeros([2, 3])
    np.testing.assert_array_equal(squash_exponential(zero), zero)
    np.testing.assert_allclose(gradient_of(squash_exponential, zero, 1.0), tf.ones([2, 3]), rtol=2e-6)  # epsilon's root


@pytest.mark.parametrize("function", [squash, squash_exponential])
def test_huge_vectors_get_length_one(function) -> None:
    # 1e30 squared is not a float32; two roundings of 6e-8 each
    np.testing.assert_allclose(lengths(function(tf.constant([[3e30, -4e30], [1e20, 0.0]]))), 1.0, rtol=2e-7)


def test_lengths() -> None:
    np.testing.assert_allclose(lengths(tf.constant([[[3.0, 4.0]], [[0.0, 0.0]]], tf.float64)), [[5.0], [1e-6]])
