"""Losses, one value a record; the loss of a record is the sum of its terms.

Labels are [B], or [B, N] where N things of different classes overlap; then each has its own reconstruction.

Axes: B batch, N objects of an image, H W image, C channels, J classes.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.config import LossConfig
from trainer.model.network import Outputs, longest
from trainer.model.squash import at_least_float32

RECONSTRUCTION = "reconstruction"
SMALLEST_SCORE = 1e-30  # whose logarithm is taken: a float32, as is its inverse
TOP = 5  # largest scores that top-5 accuracy looks at


def loss_terms(
    config: LossConfig,
    outputs: Outputs,
    images_BHWC: tf.Tensor,
    labels_B: tf.Tensor,
    spread_margin: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Weighted terms by name, each [B] in at least float32: the loss of the class scores, and 'reconstruction'.

    Args:
        outputs: of the network called with ``labels_B``.
        images_BHWC: what is to be reconstructed, in 0..1: what the network saw, or each object alone [B, N, H, W, C].
        labels_B: integer classes.
        spread_margin: m of the spread loss where it is not the final one; see ``spread_margin_schedule``.
    """
    scores_BJ = at_least_float32(outputs.class_scores_BJ)
    present_BJ = tf.one_hot(labels_B, scores_BJ.shape[-1], dtype=scores_BJ.dtype)
    if len(labels_B.shape) == 2:
        present_BJ = tf.reduce_max(present_BJ, axis=1)
    if config.kind == "spread":
        class_loss_B = spread(config, scores_BJ, present_BJ, spread_margin)
    else:
        class_loss_B = _CLASS_LOSSES[config.kind](config, scores_BJ, present_BJ)
    terms: dict[str, tf.Tensor] = {config.kind: class_loss_B}
    if outputs.reconstruction_BHWC is not None and config.reconstruction_weight:
        terms[RECONSTRUCTION] = config.reconstruction_weight * squared_error(outputs.reconstruction_BHWC, images_BHWC)
    return terms


def spread_margin_schedule(config: LossConfig, steps_per_epoch: float) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Step (number of updates made before, an int64 scalar) -> m of the spread loss, a float64 scalar.

    Hinton, Sabour, Frosst 2018, section 4.1: from 0.2 linearly to 0.9 during training, so that capsules do not die
    early. None where m does not change.
    """
    if config.kind != "spread" or not config.spread_margin_epochs:
        return None
    length = config.spread_margin_epochs * steps_per_epoch

    def margin_at(step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float64) / length, 1.0)
        return config.spread_margin_start + (config.spread_margin - config.spread_margin_start) * progress

    return margin_at


def term_names(config: LossConfig, has_decoder: bool) -> tuple[str, ...]:
    """Names of the terms that ``loss_terms`` gives, in its order."""
    return (config.kind, RECONSTRUCTION) if has_decoder and config.reconstruction_weight else (config.kind,)


def correct(outputs: Outputs, labels_B: tf.Tensor) -> tf.Tensor:
    """1 where the largest class score is the label's, else 0: [B] in the dtype of the scores.

    Of N labels each must be among the N largest scores (Sabour et al. 2017, section 6).
    """
    scores_BJ = outputs.class_scores_BJ
    if len(labels_B.shape) == 2:
        found_BN = tf.sort(longest(scores_BJ, labels_B.shape[1]), axis=-1)
        wanted_BN = tf.sort(tf.cast(labels_B, found_BN.dtype), axis=-1)
        return tf.cast(tf.reduce_all(found_BN == wanted_BN, axis=-1), scores_BJ.dtype)
    return tf.cast(tf.argmax(scores_BJ, axis=-1) == tf.cast(labels_B, tf.int64), scores_BJ.dtype)


def in_top(outputs: Outputs, labels_B: tf.Tensor) -> tf.Tensor:
    """1 where the label's score is among the TOP largest, else 0: [B] in the dtype of the scores.

    Of equal scores those of the first classes count, as in ``correct``: a network whose scores are all 0 knows nothing.
    """
    scores_BJ = outputs.class_scores_BJ
    found_BK = tf.math.top_k(scores_BJ, TOP).indices
    among_B = tf.reduce_any(found_BK == tf.cast(labels_B, found_BK.dtype)[:, tf.newaxis], axis=-1)
    return tf.cast(among_B, scores_BJ.dtype)


def in_order_of(labels_B2: tf.Tensor, outputs: Outputs) -> Outputs:
    """Reconstructions of the two longest capsules, exchanged where more of them then stand where the labels do."""
    if outputs.reconstruction_BHWC is None:
        return outputs
    found_B2 = longest(outputs.class_scores_BJ, 2)
    labels_B2 = tf.cast(labels_B2, found_B2.dtype)

    def agreeing_B(guess_B2: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(guess_B2 == labels_B2, tf.int32), axis=-1)

    exchanged_B = agreeing_B(found_B2[:, ::-1]) > agreeing_B(found_B2)
    both_B2HWC = outputs.reconstruction_BHWC
    both_B2HWC = tf.where(exchanged_B[:, None, None, None, None], both_B2HWC[:, ::-1], both_B2HWC)
    return outputs._replace(reconstruction_BHWC=both_B2HWC)


def margin(config: LossConfig, scores_BJ: tf.Tensor, present_BJ: tf.Tensor) -> tf.Tensor:
    """sum_k T_k max(0, m+ - |v_k|)^2 + lambda (1 - T_k) max(0, |v_k| - m-)^2 (Sabour et al. 2017, equation 4)."""
    short_BJ = tf.square(tf.maximum(config.margin_positive - scores_BJ, 0.0))
    long_BJ = tf.square(tf.maximum(scores_BJ - config.margin_negative, 0.0))
    return tf.reduce_sum(present_BJ * short_BJ + config.absent_weight * (1.0 - present_BJ) * long_BJ, axis=-1)


def spread(
    config: LossConfig, scores_BJ: tf.Tensor, present_BJ: tf.Tensor, margin: tf.Tensor | None = None
) -> tf.Tensor:
    """sum_(i != t) max(0, m - (a_t - a_i))^2 (Hinton, Sabour, Frosst 2018, equation 3); m is the final one if None."""
    m = config.spread_margin if margin is None else tf.cast(margin, scores_BJ.dtype)
    target_B1 = tf.reduce_sum(present_BJ * scores_BJ, axis=-1, keepdims=True)
    gap_BJ = tf.maximum(m - (target_B1 - scores_BJ), 0.0)
    return tf.reduce_sum((1.0 - present_BJ) * tf.square(gap_BJ), axis=-1)


def cross_entropy(config: LossConfig, scores_BJ: tf.Tensor, present_BJ: tf.Tensor) -> tf.Tensor:
    """-ln softmax(scale a)_t; of several classes the mean."""
    return tf.nn.softmax_cross_entropy_with_logits(labels=_targets(config, present_BJ), logits=config.scale * scores_BJ)


def nll(config: LossConfig, scores_BJ: tf.Tensor, present_BJ: tf.Tensor) -> tf.Tensor:
    """-ln (a_t / sum_j a_j), for scores that are probabilities, as those of self-routing (Hahn et al. 2019).

    Of several classes the mean.
    """
    scores_BJ = tf.maximum(scores_BJ, SMALLEST_SCORE)
    target_B = tf.reduce_sum(_targets(config, present_BJ) * tf.math.log(scores_BJ), axis=-1)
    return tf.math.log(tf.reduce_sum(scores_BJ, axis=-1)) - target_B


def _targets(config: LossConfig, present_BJ: tf.Tensor) -> tf.Tensor:
    """A record's classes as a distribution, mixed with the uniform one (Szegedy et al. 2016, section 7)."""
    share_BJ = present_BJ / tf.reduce_sum(present_BJ, axis=-1, keepdims=True)
    smoothing, classes = config.label_smoothing, present_BJ.shape[-1]
    return (1.0 - smoothing) * share_BJ + smoothing / classes if smoothing else share_BJ


def squared_error(reconstruction_BHWC: tf.Tensor, images_BHWC: tf.Tensor) -> tf.Tensor:
    """Sum over pixels, and objects if there are several, of the squared difference (section 4.1), [B]."""
    difference_BHWC = reconstruction_BHWC - tf.cast(images_BHWC, reconstruction_BHWC.dtype)
    return tf.reduce_sum(tf.square(difference_BHWC), axis=list(range(1, difference_BHWC.shape.rank)))


_CLASS_LOSSES = {"margin": margin, "cross_entropy": cross_entropy, "nll": nll}
