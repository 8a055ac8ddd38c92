"""Losses against loops written from the papers. Axes: B batch, H W image, C channels, J classes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer import losses
from trainer.config import LossConfig
from trainer.model.network import Outputs

EXACT = 1e-12  # float64 sums of tens of terms
DIFFERENCE = 1e-8  # of a central difference with step 1e-5 of piecewise parabolas and one softmax
B, J = 6, 5


def margin(config: LossConfig, scores_J: np.ndarray, label: int) -> float:
    total = 0.0
    for k, length in enumerate(scores_J):
        present = 1.0 if k == label else 0.0
        total += present * max(0.0, config.margin_positive - length) ** 2
        total += config.absent_weight * (1.0 - present) * max(0.0, length - config.margin_negative) ** 2
    return total


def spread(config: LossConfig, scores_J: np.ndarray, label: int) -> float:
    return sum(
        max(0.0, config.spread_margin - (scores_J[label] - scores_J[i])) ** 2
        for i in range(len(scores_J))
        if i != label
    )


def cross_entropy(config: LossConfig, scores_J: np.ndarray, label: int) -> float:
    exponentials = [np.exp(config.scale * score) for score in scores_J]
    return -np.log(exponentials[label] / sum(exponentials))


ORACLES = {"margin": margin, "spread": spread, "cross_entropy": cross_entropy}


def example(dtype=np.float64) -> tuple[Outputs, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores_BJ, labels_B = rng.random((B, J)).astype(dtype), rng.integers(0, J, B)
    images_BHWC, reconstruction_BHWC = rng.random((2, B, 4, 4, 3)).astype(dtype)
    return Outputs(tf.constant(scores_BJ), None, tf.constant(reconstruction_BHWC), {}), images_BHWC, labels_B


@pytest.mark.parametrize("kind", ORACLES)
def test_class_losses(kind: str) -> None:
    config = LossConfig(kind=kind)
    outputs, images_BHWC, labels_B = example()
    found_B = losses.loss_terms(config, outputs, images_BHWC, labels_B)[kind]
    expected_B = [ORACLES[kind](config, s, y) for s, y in zip(outputs.class_scores_BJ.numpy(), labels_B, strict=True)]
    np.testing.assert_allclose(found_B, expected_B, rtol=EXACT)


@pytest.mark.parametrize("kind", ORACLES)
def test_gradients_of_class_losses(kind: str) -> None:
    config = LossConfig(kind=kind)
    outputs, images_BHWC, labels_B = example()
    scores_BJ = outputs.class_scores_BJ
    with tf.GradientTape() as tape:
        tape.watch(scores_BJ)
        loss_B = losses.loss_terms(config, outputs, images_BHWC, labels_B)[kind]
    found_BJ = tape.gradient(loss_B, scores_BJ)
    step = 1e-5
    for n, j in np.ndindex(B, J):
        above, below = scores_BJ.numpy()[n], scores_BJ.numpy()[n]
        above, below = above + step * np.eye(J)[j], below - step * np.eye(J)[j]
        expected = (ORACLES[kind](config, above, labels_B[n]) - ORACLES[kind](config, below, labels_B[n])) / (2 * step)
        assert float(found_BJ[n, j]) == pytest.approx(expected, rel=1e-7, abs=DIFFERENCE)


def test_reconstruction_is_the_weighted_sum_over_pixels() -> None:
    outputs, images_BHWC, labels_B = example()
    found_B = losses.loss_terms(LossConfig(), outputs, images_BHWC, labels_B)["reconstruction"]
    for n in range(B):
        total = sum((outputs.reconstruction_BHWC.numpy()[n][i] - images_BHWC[n][i]) ** 2 for i in np.ndindex(4, 4, 3))
        assert float(found_B[n]) == pytest.approx(0.0005 * total, rel=EXACT)


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("kind", ORACLES)
def test_names_are_known_beforehand(kind: str, weight: float, decoder: bool) -> None:
    config = LossConfig(kind=kind, reconstruction_weight=weight)
    outputs, images_BHWC, labels_B = example(np.float32)
    outputs = outputs if decoder else outputs._replace(reconstruction_BHWC=None)
    terms = losses.loss_terms(config, outputs, images_BHWC, labels_B)
    assert tuple(terms) == tuple(losses.term_names(config, decoder))
    assert all(term.shape == (B,) and term.dtype == tf.float32 for term in terms.values())


def test_correct() -> None:
    outputs, _, labels_B = example()
    expected_B = np.argmax(outputs.class_scores_BJ, axis=-1) == labels_B
    for dtype in (tf.int32, tf.int64):
        np.testing.assert_array_equal(losses.correct(outputs, tf.cast(labels_B, dtype)), expected_B)


@pytest.mark.parametrize("kind", ORACLES)
def test_finite_with_equal_scores(kind: str) -> None:
    for value in (0.0, 1.0):
        scores_BJ = tf.fill([B, J], value)
        with tf.GradientTape() as tape:
            tape.watch(scores_BJ)
            outputs = Outputs(scores_BJ, None, None, {})
            loss_B = losses.loss_terms(LossConfig(kind=kind), outputs, None, tf.zeros([B], tf.int32))[kind]
        assert np.all(np.isfinite(loss_B))
        assert np.all(np.isfinite(tape.gradient(loss_B, scores_BJ)))
