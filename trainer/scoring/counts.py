"""What a batch of test records adds to a score. All are sums, so that ranks can share the records.

Axes: B batch, N objects of an image, J classes, K bins of confidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import distributed, evaluation, losses
from trainer.config import LossConfig, RunConfig
from trainer.distributed import World
from trainer.model.network import CapsNet, longest
from trainer.model.squash import at_least_float32

Counted = NDArray[np.float64]
BINS = 15
"""Of equal width over 0..1 (Guo et al. 2017, section 2)."""
TOP = 5


@dataclass(frozen=True)
class Counts:
    """Sums over records; whole numbers but for losses and confidences. Of pairs, confusion and bins are empty."""

    records: float
    correct: float
    top: float  # the right class is among the TOP most active
    terms: dict[str, float]
    present_J: Counted  # records that hold the class
    found_J: Counted  # records in which the class was found
    hit_J: Counted  # both
    confusion_JJ: Counted  # rows: the right class; columns: the one that was found
    bin_records_K: Counted
    bin_correct_K: Counted
    bin_confidence_K: Counted


def confidence(config: LossConfig, scores_BJ: tf.Tensor) -> tf.Tensor:
    """How sure a network is of its most active class, 0..1: [B].

    Softmax of the scaled scores where the loss is cross entropy; their share of the sum where they are probabilities
    (nll); with margin and spread loss the score itself, a length or an activation, which these push towards 0 and 1.
    """
    scores_BJ = at_least_float32(scores_BJ)
    if config.kind == "cross_entropy":
        return tf.reduce_max(tf.nn.softmax(config.scale * scores_BJ), axis=-1)
    largest_B = tf.reduce_max(scores_BJ, axis=-1)
    if config.kind == "nll":
        return largest_B / tf.maximum(tf.reduce_sum(scores_BJ, axis=-1), losses.SMALLEST_SCORE)
    return tf.clip_by_value(largest_B, 0.0, 1.0)


def make_count_batch(config: RunConfig, network: CapsNet) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """A function of a test batch that gives a row of sums; ``counted`` takes it apart. No collective inside."""
    classes, single = config.model.classes, config.objects == 1

    @tf.function
    def count(image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, *sources: tf.Tensor) -> tf.Tensor:
        outputs = evaluation.forward(config, network, image, label, *sources)
        columns = evaluation.columns(config, outputs, image, label, weight, *sources)
        weight_B = tf.cast(weight, tf.float64)
        found_BJ = _many_hot(longest(outputs.class_scores_BJ, config.objects), classes)
        present_BJ = _many_hot(label, classes)
        by_class = [
            tf.linalg.matvec(each_BJ, weight_B, transpose_a=True)
            for each_BJ in (present_BJ, found_BJ, present_BJ * found_BJ)
        ]
        row = [columns, *by_class]
        if single:
            top_B = tf.math.in_top_k(label, at_least_float32(outputs.class_scores_BJ), min(TOP, classes))
            row.append([tf.reduce_sum(tf.cast(top_B, tf.float64) * weight_B)])
            confusion_JJ = tf.matmul(present_BJ * weight_B[:, tf.newaxis], found_BJ, transpose_a=True)
            row.append(tf.reshape(confusion_JJ, [-1]))
            row += _bins(config, outputs.class_scores_BJ, losses.correct(outputs, label), weight_B)
        return tf.concat(row, axis=0)

    def of_batch(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        sources = [batch["sources"]] if "sources" in batch else []
        return count(batch["image"], batch["label"], batch["weight"], *sources)

    return of_batch


def _many_hot(classes_B: tf.Tensor, count: int) -> tf.Tensor:
    """[B] or [B, N] -> [B, J] in float64."""
    hot = tf.one_hot(classes_B, count, dtype=tf.float64)
    return hot if hot.shape.rank == 2 else tf.reduce_max(hot, axis=1)


def _bins(config: RunConfig, scores_BJ: tf.Tensor, correct_B: tf.Tensor, weight_B: tf.Tensor) -> list[tf.Tensor]:
    sure_B = tf.cast(confidence(config.loss, scores_BJ), tf.float64)
    bin_B = tf.minimum(tf.cast(sure_B * BINS, tf.int32), BINS - 1)
    values = (weight_B, tf.cast(correct_B, tf.float64) * weight_B, sure_B * weight_B)
    return [tf.math.unsorted_segment_sum(value_B, bin_B, BINS) for value_B in values]


def width(config: RunConfig) -> int:
    """Numbers of a row."""
    classes, terms = config.model.classes, losses.term_names(config.loss, bool(config.model.decoder.hidden))
    return 2 + len(terms) + 3 * classes + (1 + classes**2 + 3 * BINS if config.objects == 1 else 0)


def counted(config: RunConfig, world: World, row: Counted) -> Counts:
    """Adds a rank's sum of rows to those of the others, in one collective."""
    classes, names = config.model.classes, losses.term_names(config.loss, bool(config.model.decoder.hidden))
    rest = distributed.sum_values(world, row.tolist(), "evaluation")

    def take(count: int) -> Counted:
        nonlocal rest
        taken, rest = rest[:count], rest[count:]
        return taken

    records, correct = take(2)
    terms = dict(zip(names, map(float, take(len(names))), strict=True))
    present_J, found_J, hit_J = (take(classes) for _ in range(3))
    top, confusion_JJ, bins = float("nan"), np.zeros((0, 0)), [np.zeros(0)] * 3
    if config.objects == 1:
        top = float(take(1)[0])
        confusion_JJ = take(classes * classes).reshape(classes, classes)
        bins = [take(BINS) for _ in range(3)]
    return Counts(float(records), float(correct), top, terms, present_J, found_J, hit_J, confusion_JJ, *bins)
