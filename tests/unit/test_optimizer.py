"""Schedules, updates, weight decay and clipping against their formulas."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import optimizer
from trainer.config import OptimizerConfig

STEPS_PER_EPOCH, TOTAL = 10, 100
SINGLE = 1e-6  # float32: one update of a few operations, 6e-8 each

SCHEDULES = [
    (OptimizerConfig(), lambda s: 1.0),
    (OptimizerConfig(warmup_steps=4), lambda s: min(1.0, (s + 1) / 4)),
    (
        OptimizerConfig(schedule="cosine", warmup_steps=20, final_fraction=0.1),
        lambda s: (s + 1) / 20 if s < 20 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1, (s - 20) / 80))),
    ),
    (
        OptimizerConfig(schedule="step", decay_rate=0.5, decay_epochs=(2.0, 4.5)),
        lambda s: 1.0 if s < 20 else 0.5 if s < 45 else 0.25,
    ),
    (OptimizerConfig(schedule="exponential", decay_rate=0.3, decay_epochs=(2.5,)), lambda s: 0.3 ** (s / 25)),
]


@pytest.mark.parametrize(("config", "fraction"), SCHEDULES, ids=lambda value: getattr(value, "schedule", ""))
def test_schedules(config: OptimizerConfig, fraction) -> None:
    rate = optimizer.learning_rate(config, STEPS_PER_EPOCH, TOTAL)
    found = [float(rate(tf.constant(step, tf.int64))) for step in range(TOTAL + 5)]
    # float32 in the last operation only
    np.testing.assert_allclose(found, [0.001 * fraction(step) for step in range(TOTAL + 5)], rtol=1e-7, atol=1e-12)


def variables(dtype: str = "float32") -> list[keras.Variable]:
    with keras.name_scope("layer"):
        return [
            keras.Variable(np.array([[1.0, -2.0]]), dtype=dtype, name=name)
            for name in ("kernel", "bias", "transform", "projection", "gamma", "beta")
        ]


def test_rate_changes_inside_one_traced_step() -> None:
    config = OptimizerConfig(kind="sgd", momentum=0.0, schedule="cosine", warmup_steps=2, learning_rate=0.5)
    weights = variables()
    update = optimizer.build_optimizer(config, weights)
    rate = optimizer.learning_rate(config, STEPS_PER_EPOCH, TOTAL)
    step = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def train() -> tf.Tensor:
        update.learning_rate.assign(rate(step))
        update.apply([tf.ones([1, 2]) for _ in weights], weights)
        step.assign_add(1)
        return update.learning_rate.value + 0.0

    expected = 1.0
    for s in range(6):
        used = float(train())
        assert used == float(rate(tf.constant(s, tf.int64)))
        expected -= used
        assert float(weights[0][0, 0]) == pytest.approx(expected, rel=SINGLE, abs=SINGLE)
    assert train.experimental_get_tracing_count() == 1


def test_adam_is_the_papers() -> None:
    config = OptimizerConfig(learning_rate=0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-8)
    weights = variables("float64")
    update = optimizer.build_optimizer(config, weights)
    w, m, v = np.array([[1.0, -2.0]]), 0.0, 0.0
    for t in range(1, 6):
        g = np.array([[0.3 * t, -1.0 / t]])
        update.apply([tf.constant(g)] * len(weights), weights)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        # the efficient order of section 2 of Kingma and Ba, whose epsilon stands outside the correction
        w = w - 0.1 * math.sqrt(1 - 0.9**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 1e-8)
        # Keras holds the learning rate and the powers' bases in float32, whatever the variables are
        np.testing.assert_allclose(weights[0], w, rtol=SINGLE)


def test_sgd_is_nesterov() -> None:
    config = OptimizerConfig(kind="sgd", learning_rate=0.1, momentum=0.9)
    weights = variables()
    update = optimizer.build_optimizer(config, weights)
    w, m = np.array([[1.0, -2.0]]), 0.0
    for t in range(1, 5):
        g = np.array([[0.3 * t, -1.0 / t]])
        update.apply([tf.constant(g, tf.float32)] * len(weights), weights)
        m = 0.9 * m - 0.1 * g
        w = w + 0.9 * m - 0.1 * g
        np.testing.assert_allclose(weights[0], w, rtol=SINGLE)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_weight_decay_is_decoupled_and_for_kernels_transforms_and_projections_only(kind: str) -> None:
    weights = variables()
    update = optimizer.build_optimizer(OptimizerConfig(kind=kind, weight_decay=0.5), weights)
    update.learning_rate.assign(0.1)
    update.apply([tf.zeros([1, 2]) for _ in weights], weights)
    for weight in weights:
        factor = 1.0 - 0.1 * 0.5 if weight.path in ("layer/kernel", "layer/transform", "layer/projection") else 1.0
        np.testing.assert_allclose(weight, [[factor, -2.0 * factor]], rtol=SINGLE)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_slots_exist_before_the_first_update(kind: str) -> None:
    weights = variables()
    update = optimizer.build_optimizer(OptimizerConfig(kind=kind), weights)
    paths = [variable.path for variable in update.variables]
    update.apply([tf.ones([1, 2]) for _ in weights], weights)
    assert [variable.path for variable in update.variables] == paths
    assert len(set(paths)) == len(paths) >= 2 + len(weights)


def test_clip() -> None:
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    for limit, factor in ((0.0, 1.0), (10.0, 1.0), (1.0, 0.2)):
        clipped, norms_V = optimizer.clip(gradients, limit)
        np.testing.assert_allclose(norms_V, [3.0, 4.0], rtol=SINGLE)
        for before, after in zip(gradients, clipped, strict=True):
            np.testing.assert_allclose(after, factor * before, rtol=SINGLE)
    clipped, _ = optimizer.clip([tf.constant([math.nan]), tf.constant([1.0])], 1.0)
    assert all(math.isnan(float(each[0])) for each in clipped)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_means_of_the_weights(kind: str) -> None:
    weights = variables()
    update = optimizer.build_optimizer(OptimizerConfig(kind=kind, average_decay=0.75), weights)
    means = optimizer.averages(update, weights)
    assert list(means) == [weight.path for weight in weights]
    expected = 0.0
    for t in range(5):
        update.learning_rate.assign(0.1)
        update.apply([tf.constant([[0.3 * t, -1.0 / (t + 1)]])] * len(weights), weights)
        trained = np.array(weights[0].numpy(), np.float64)
        expected = trained if t == 0 else 0.75 * expected + 0.25 * trained
        for weight in weights:
            np.testing.assert_allclose(means[weight.path], expected, rtol=SINGLE)
    assert np.abs(expected - trained).min() > 1e-3
    for _ in range(2):  # the means do not move by being used
        with optimizer.averaged(update, weights):
            for weight in weights:
                np.testing.assert_array_equal(weight, means[weight.path])
        for weight in weights:
            np.testing.assert_array_equal(weight, trained.astype(np.float32))


def test_the_trained_weights_come_back_after_an_error() -> None:
    weights = variables()
    update = optimizer.build_optimizer(OptimizerConfig(average_decay=0.5), weights)
    with pytest.raises(KeyboardInterrupt), optimizer.averaged(update, weights):
        raise KeyboardInterrupt
    np.testing.assert_array_equal(weights[0], [[1.0, -2.0]])


def test_without_means_weights_stay_what_they_are() -> None:
    weights = variables()
    update = optimizer.build_optimizer(OptimizerConfig(), weights)
    assert optimizer.averages(update, weights) == {}
    with optimizer.averaged(update, weights):
        np.testing.assert_array_equal(weights[0], [[1.0, -2.0]])
