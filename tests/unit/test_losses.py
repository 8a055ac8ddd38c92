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


def nll(config: LossConfig, scores_J: np.ndarray, label: int) -> float:
    return -np.log(scores_J[label] / sum(scores_J))


ORACLES = {"margin": margin, "spread": spread, "cross_entropy": cross_entropy, "nll": nll}


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


@pytest.mark.parametrize("kind", ["cross_entropy", "nll"])
def test_of_two_classes_the_mean_is_taken(kind: str) -> None:
    config = LossConfig(kind=kind)
    outputs, images_BHWC, labels_B = example()
    labels_B2 = np.stack([labels_B, (labels_B + 2) % J], axis=1)
    found_B = losses.loss_terms(config, outputs, images_BHWC, labels_B2)[kind]
    expected_B = [
        np.mean([ORACLES[kind](config, scores_J, label) for label in labels_2])
        for scores_J, labels_2 in zip(outputs.class_scores_BJ.numpy(), labels_B2, strict=True)
    ]
    np.testing.assert_allclose(found_B, expected_B, rtol=EXACT)


@pytest.mark.parametrize("kind", ["cross_entropy", "nll"])
def test_label_smoothing_is_a_share_of_every_class(kind: str) -> None:
    """The mixture of the losses of all labels, each with its weight: both losses are linear in the target."""
    smoothed = LossConfig(kind=kind, label_smoothing=0.2)
    outputs, images_BHWC, labels_B = example()
    found_B = losses.loss_terms(smoothed, outputs, images_BHWC, labels_B)[kind]
    for scores_J, label, found in zip(outputs.class_scores_BJ.numpy(), labels_B, found_B, strict=True):
        of_label = [ORACLES[kind](smoothed, scores_J, other) for other in range(J)]
        assert float(found) == pytest.approx(0.8 * of_label[label] + 0.2 * np.mean(of_label), rel=EXACT)


@pytest.mark.parametrize("kind", ["margin", "spread"])
def test_label_smoothing_is_refused_where_there_are_margins(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} has margins"):
        LossConfig(kind=kind, label_smoothing=0.1)


def test_nll_is_finite_for_a_score_of_zero() -> None:
    scores_BJ = tf.constant([[0.0, 1.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(scores_BJ)
        loss_B = losses.nll(LossConfig(kind="nll"), scores_BJ, tf.constant([[1.0, 0.0], [1.0, 0.0]]))
    assert np.all(np.isfinite(loss_B))
    assert np.all(np.isfinite(tape.gradient(loss_B, scores_BJ)))


def test_spread_margin_grows_linearly_with_the_step() -> None:
    config = LossConfig(kind="spread", spread_margin=0.9, spread_margin_start=0.2, spread_margin_epochs=2.5)
    margin_at = losses.spread_margin_schedule(config, steps_per_epoch=10)
    found = [float(tf.function(margin_at)(tf.constant(step, tf.int64))) for step in (0, 5, 24, 25, 26, 2**40)]
    np.testing.assert_allclose(found, [0.2, 0.2 + 0.7 * 5 / 25, 0.2 + 0.7 * 24 / 25, 0.9, 0.9, 0.9], rtol=EXACT)


def test_spread_margin_is_the_final_one_by_default() -> None:
    assert losses.spread_margin_schedule(LossConfig(kind="spread"), 10) is None
    assert losses.spread_margin_schedule(LossConfig(kind="margin", spread_margin_epochs=2), 10) is None
    outputs, images_BHWC, labels_B = example()
    config = LossConfig(kind="spread", spread_margin_epochs=2)
    final_B = losses.loss_terms(config, outputs, images_BHWC, labels_B)["spread"]
    early_B = losses.loss_terms(config, outputs, images_BHWC, labels_B, tf.constant(0.2, tf.float64))["spread"]
    for margin, found_B in ((0.9, final_B), (0.2, early_B)):
        fixed = LossConfig(kind="spread", spread_margin=margin)
        expected_B = [spread(fixed, s, y) for s, y in zip(outputs.class_scores_BJ.numpy(), labels_B, strict=True)]
        np.testing.assert_allclose(found_B, expected_B, rtol=EXACT)


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


def test_in_top() -> None:
    rng = np.random.default_rng(5)
    scores_BJ, labels_B = rng.random((60, 12)), rng.integers(0, 12, 60)
    expected_B = []
    for scores_J, label in zip(scores_BJ, labels_B, strict=True):
        larger = sum(score > scores_J[label] for score in scores_J)
        expected_B.append(float(larger < 5))
    assert 0 < sum(expected_B) < 60
    found_B = losses.in_top(Outputs(tf.constant(scores_BJ), None, None, {}), tf.constant(labels_B, tf.int32))
    np.testing.assert_array_equal(found_B, expected_B)


def test_scores_that_are_all_the_same_are_no_answer() -> None:
    """A network that is dead is right for the first classes only, and not for all."""
    labels_B = tf.range(10)
    dead = Outputs(tf.zeros([10, 10]), None, None, {})
    assert losses.in_top(dead, labels_B).numpy().tolist() == [1] * 5 + [0] * 5
    assert losses.correct(dead, labels_B).numpy().tolist() == [1] + [0] * 9


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


# two things of different classes


def pairs(dtype: type = np.float64) -> tuple[Outputs, np.ndarray, np.ndarray]:
    """Outputs, sources [B, 2, 4, 4, 3] and labels [B, 2] of different classes."""
    rng = np.random.default_rng(2)
    scores_BJ = rng.random((40, J)).astype(dtype)
    labels_B2 = np.stack([rng.permutation(J)[:2] for _ in range(40)])
    sources, reconstructions = rng.random((2, 40, 2, 4, 4, 3)).astype(dtype)
    return Outputs(tf.constant(scores_BJ), None, tf.constant(reconstructions), {}), sources, labels_B2


def test_margin_of_two_present_classes() -> None:
    config = LossConfig()
    outputs, sources, labels_B2 = pairs()
    found_B = losses.loss_terms(config, outputs, sources, tf.constant(labels_B2))["margin"]
    for scores_J, labels, found in zip(outputs.class_scores_BJ.numpy(), labels_B2, found_B, strict=True):
        total = 0.0
        for k, length in enumerate(scores_J):
            if k in labels:
                total += max(0.0, config.margin_positive - length) ** 2
            else:
                total += config.absent_weight * max(0.0, length - config.margin_negative) ** 2
        assert float(found) == pytest.approx(total, rel=EXACT)


def test_both_reconstructions_count() -> None:
    outputs, sources, labels_B2 = pairs()
    found_B = losses.loss_terms(LossConfig(), outputs, sources, tf.constant(labels_B2))["reconstruction"]
    for n, found in enumerate(found_B):
        pixels = np.ndindex(2, 4, 4, 3)
        total = sum((outputs.reconstruction_BHWC.numpy()[n][i] - sources[n][i]) ** 2 for i in pixels)
        assert float(found) == pytest.approx(0.0005 * total, rel=EXACT)


def test_correct_is_an_exact_match_of_both() -> None:
    outputs, _, labels_B2 = pairs()
    best = [set(np.argsort(-scores_J)[:2].tolist()) for scores_J in outputs.class_scores_BJ.numpy()]
    expected_B = [float(found == set(labels.tolist())) for found, labels in zip(best, labels_B2, strict=True)]
    assert 0 < sum(expected_B) < 40
    assert any(len(found & set(labels.tolist())) == 1 for found, labels in zip(best, labels_B2, strict=True))
    for labels in (labels_B2, labels_B2[:, ::-1]):
        np.testing.assert_array_equal(losses.correct(outputs, tf.constant(labels, tf.int32)), expected_B)


def test_reconstructions_are_put_in_the_order_of_the_labels() -> None:
    """Where both classes are found or one, those found stand where their labels do; otherwise as they come."""
    scores_BJ = tf.constant([[0.9, 0.8, 0, 0, 0]] * 6)
    labels_B2 = tf.constant([[0, 1], [1, 0], [0, 3], [3, 0], [1, 3], [3, 4]])
    both_B2HWC = tf.tile(tf.reshape([0.0, 1.0], [1, 2, 1, 1, 1]), [6, 1, 4, 4, 1])
    found = losses.in_order_of(labels_B2, Outputs(scores_BJ, None, both_B2HWC, {})).reconstruction_BHWC
    assert found[:, :, 0, 0, 0].numpy().tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]
    without = Outputs(scores_BJ, None, None, {})
    assert losses.in_order_of(labels_B2, without) is without
