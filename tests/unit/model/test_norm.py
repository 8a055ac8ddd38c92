"""Group normalisation against loops and against Keras's own.

Axes: B batch, H W grid, C channels, G groups.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.model import oracles
from trainer.model.norm import GroupNormalization

EXACT = 1e-12  # float64 sums of tens of terms in another order
DIFFERENCE = 1e-6  # of a central difference with step 1e-5, times third derivatives of hundreds
EPSILON = 1e-5
B, H, W, C, G = 2, 3, 4, 6, 2


def oracle(x_BHWC: np.ndarray, gain_C: np.ndarray, shift_C: np.ndarray) -> np.ndarray:
    """Wu and He 2018, equations 1, 2 and 6, with the groups of equation 7."""
    y_BHWC = np.zeros_like(x_BHWC)
    for n in range(B):
        for group in range(G):
            channels = [c for c in range(C) if c // (C // G) == group]
            values = [x_BHWC[n, h, w, c] for h in range(H) for w in range(W) for c in channels]
            mean = sum(values) / len(values)
            std = np.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + EPSILON)
            for c in channels:
                y_BHWC[n, :, :, c] = gain_C[c] * (x_BHWC[n, :, :, c] - mean) / std + shift_C[c]
    return y_BHWC


def example(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(B, H, W, C)) * 2.0 + 1.0, rng.normal(size=C), rng.normal(size=C)]


def layer(kind: type = GroupNormalization, dtype: str = "float64") -> keras.layers.Layer:
    made = kind(G, epsilon=EPSILON, dtype=dtype)
    made.build((None, H, W, C))
    made.gamma.assign(example()[1])
    made.beta.assign(example()[2])
    return made


def with_gradients(made: keras.layers.Layer, x_BHWC: tf.Tensor, weights_BHWC: np.ndarray) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(x_BHWC)
        y_BHWC = made(x_BHWC)
        total = tf.reduce_sum(tf.cast(y_BHWC, tf.float64) * weights_BHWC)
    return [y_BHWC, *tape.gradient(total, [x_BHWC, made.gamma.value, made.beta.value])]


def test_is_its_equations() -> None:
    np.testing.assert_allclose(layer()(tf.constant(example()[0])), oracle(*example()), rtol=EXACT)


def test_gradients_against_differences() -> None:
    arguments, weights_BHWC = example(), np.random.default_rng(3).normal(size=(B, H, W, C))
    found = with_gradients(layer(), tf.constant(arguments[0]), weights_BHWC)[1:]
    for place, gradient in enumerate(found):

        def objective(value, place=place):
            return float(np.sum(oracle(*arguments[:place], value, *arguments[place + 1 :]) * weights_BHWC))

        expected = oracles.finite_difference(objective, arguments[place])
        np.testing.assert_allclose(gradient, expected, rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.parametrize(("dtype", "unit"), [("float64", 2.0**-52), ("float32", 2.0**-23), ("mixed_bfloat16", 2.0**-7)])
def test_agrees_with_keras(dtype: str, unit: float) -> None:
    """At a batch of unknown size; in bfloat16 both round what goes in and comes out."""
    ours, theirs = layer(dtype=dtype), layer(keras.layers.GroupNormalization, dtype)
    x_BHWC = tf.cast(example()[0], ours.compute_dtype)
    weights_BHWC = np.random.default_rng(3).normal(size=(B, H, W, C))
    compiled = tf.function(lambda x: ours(x), input_signature=[tf.TensorSpec([None, H, W, C], x_BHWC.dtype)])
    assert compiled(x_BHWC).shape == x_BHWC.shape
    found, expected = (with_gradients(made, x_BHWC, weights_BHWC) for made in (ours, theirs))
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == other.dtype
        # sums of some 50 terms of size 1, in another order
        np.testing.assert_allclose(tf.cast(mine, tf.float64), tf.cast(other, tf.float64), rtol=8 * unit, atol=50 * unit)


@pytest.mark.parametrize("value", [0.0, 1.0, 255.0, 1e-20, 1e15])
def test_finite_for_features_that_are_all_the_same(value: float) -> None:
    made = layer(dtype="float32")
    for tensor in with_gradients(made, tf.fill([B, H, W, C], value), np.ones((B, H, W, C))):
        assert np.all(np.isfinite(tensor))


def test_weights_have_the_names_that_checkpoints_know() -> None:
    made = GroupNormalization(G, name="norm_0")
    made.build((None, H, W, C))
    assert [variable.path for variable in made.variables] == ["norm_0/gamma", "norm_0/beta"]
