"""What a batch of test records adds to a score. All are sums, so that ranks can share the records.

Axes: B batch, N objects of an image, J classes, K bins of confidence, V values of a score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import distributed, evaluation, losses
from trainer.config import LossConfig, RunConfig
from trainer.distributed import World
from trainer.model.network import CapsNet, longest
from trainer.model.squash import at_least_float32

Whole = NDArray[np.int64]
Real = NDArray[np.float64]
BINS = 15
"""Of equal width over 0..1 (Guo et al. 2017, section 2)."""


@dataclass(frozen=True)
class Counts:
    """Sums over records, and of records. Of pairs there are no bins and no lead, and confusion_JJ is empty."""

    values_V: Real  # records, then the sums of evaluation.value_names
    present_J: Whole  # records that hold the class
    found_J: Whole  # records in which the class was found
    hit_J: Whole  # both
    confusion_JJ: Whole  # rows: the right class; columns: the one that was found
    bin_records_K: Whole
    bin_correct_K: Whole
    bin_confidence_K: Real
    lead_1: Real  # the right class's score less the best of the others

    @classmethod
    def none(cls, config: RunConfig) -> Counts:
        classes, single = config.model.classes, config.objects == 1

        def whole(*shape: int) -> Whole:
            return np.zeros(shape, np.int64)

        side, bins = (classes, BINS) if single else (0, 0)
        return cls(
            values_V=np.zeros(1 + len(evaluation.value_names(config))),
            present_J=whole(classes),
            found_J=whole(classes),
            hit_J=whole(classes),
            confusion_JJ=whole(side, side),
            bin_records_K=whole(bins),
            bin_correct_K=whole(bins),
            bin_confidence_K=np.zeros(bins),
            lead_1=np.zeros(int(single)),
        )

    def over_ranks(self, world: World) -> Counts:
        """The sums of all ranks, in one collective, whose float64 holds whole numbers below 2^53 exactly."""
        mine = [getattr(self, field.name) for field in fields(self)]
        summed = distributed.sum_values(world, np.concatenate([part.ravel() for part in mine]).tolist(), "evaluation")
        parts = np.split(summed, np.cumsum([part.size for part in mine])[:-1])
        return Counts(*(sum_.reshape(part.shape).astype(part.dtype) for sum_, part in zip(parts, mine, strict=True)))


CountBatch = Callable[[Counts, dict[str, tf.Tensor]], None]


def make_count_batch(config: RunConfig, network: CapsNet) -> CountBatch:
    """A function that adds a test batch to counts. No collective inside."""

    @tf.function(autograph=False)
    def look(image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, *sources: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = evaluation.forward(config, network, image, label, *sources)
        values_V = evaluation.columns(config, outputs, image, label, weight, *sources)
        scores_BJ = outputs.class_scores_BJ
        lead_B = leads(scores_BJ, label) if config.objects == 1 else tf.zeros([0])
        return values_V, longest(scores_BJ, config.objects), confidence(config.loss, scores_BJ), lead_B

    def count(counts: Counts, batch: dict[str, tf.Tensor]) -> None:
        sources = [batch["sources"]] if "sources" in batch else []
        seen = look(batch["image"], batch["label"], batch["weight"], *sources)
        values_V, found_B, sure_B, lead_B = (tensor.numpy() for tensor in seen)
        counts.values_V[:] += values_V
        is_record_B = batch["weight"].numpy() > 0  # and not padding
        label_B, found_B, sure_B = batch["label"].numpy()[is_record_B], found_B[is_record_B], sure_B[is_record_B]
        if config.objects == 1:
            _add(counts, label_B, found_B, sure_B)
            counts.lead_1[:] += lead_B[is_record_B].sum(dtype=np.float64)
        else:
            _add_pairs(counts, label_B, found_B)

    return count


def confidence(config: LossConfig, scores_BJ: tf.Tensor) -> tf.Tensor:
    """How sure a network is of its most active class, 0..1: [B]. ``report.CONFIDENCE`` says it in words.

    With margin and spread loss it is the score itself, a length or an activation, which these push towards 0 and 1.
    """
    scores_BJ = at_least_float32(scores_BJ)
    if config.kind == "cross_entropy":
        return tf.reduce_max(tf.nn.softmax(config.scale * scores_BJ), axis=-1)
    largest_B = tf.reduce_max(scores_BJ, axis=-1)
    if config.kind == "nll":
        return largest_B / tf.maximum(tf.reduce_sum(scores_BJ, axis=-1), losses.SMALLEST_SCORE)
    return tf.clip_by_value(largest_B, 0.0, 1.0)


def leads(scores_BJ: tf.Tensor, label_B: tf.Tensor) -> tf.Tensor:
    """The right class's score less the best of the others: [B]; above 0 where the record is right."""
    scores_BJ = at_least_float32(scores_BJ)
    right_BJ = tf.one_hot(label_B, scores_BJ.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    others_BJ = tf.where(right_BJ, scores_BJ.dtype.min, scores_BJ)
    return tf.gather(scores_BJ, label_B, batch_dims=1) - tf.reduce_max(others_BJ, axis=-1)


def _add(counts: Counts, label_B: Whole, found_B: Whole, sure_B: Real) -> None:
    np.add.at(counts.confusion_JJ, (label_B, found_B), 1)
    correct_B = label_B == found_B
    for classes_B, sum_J in (
        (label_B, counts.present_J),
        (found_B, counts.found_J),
        (label_B[correct_B], counts.hit_J),
    ):
        sum_J += np.bincount(classes_B, minlength=len(sum_J))
    sure_B = np.nan_to_num(sure_B.astype(np.float64))
    bin_B = np.minimum((sure_B * BINS).astype(np.int64), BINS - 1)
    counts.bin_records_K[:] += np.bincount(bin_B, minlength=BINS)
    counts.bin_correct_K[:] += np.bincount(bin_B[correct_B], minlength=BINS)
    counts.bin_confidence_K[:] += np.bincount(bin_B, sure_B, minlength=BINS)


def _add_pairs(counts: Counts, labels_B2: Whole, found_B2: Whole) -> None:
    hit_B2 = (labels_B2[:, :, np.newaxis] == found_B2[:, np.newaxis]).any(axis=-1)
    for classes, sum_J in (
        (labels_B2, counts.present_J),
        (found_B2, counts.found_J),
        (labels_B2[hit_B2], counts.hit_J),
    ):
        sum_J += np.bincount(classes.ravel(), minlength=len(sum_J))
