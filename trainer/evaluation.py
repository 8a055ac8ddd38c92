"""Evaluation: every test record counted exactly once, at any number of ranks.

Axes: B batch, J classes, V sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import distributed, losses
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data.index import Index
from trainer.distributed import World
from trainer.errors import DataError
from trainer.model.network import CapsNet, Outputs, longest

EvaluateBatch = Callable[[dict[str, tf.Tensor]], tf.Tensor]
MOST_CONFUSED = 100
"""With more classes a training does not count which class is taken for which."""


@dataclass(frozen=True)
class Score:
    """Means over all test records of all ranks. ``stopped``: a rank was asked to stop, the values are of no use."""

    records: int
    values: dict[str, float]
    stopped: bool
    confusion_JJ: NDArray[np.int64] | None = None
    """Records; rows: the right class, columns: the one that was found. None where it is not counted."""

    @property
    def accuracy(self) -> float:
        return self.values["accuracy"]


def make_evaluate_batch(config: RunConfig, network: CapsNet) -> EvaluateBatch:
    """A function of a batch that gives weighted sums, those of ``columns`` and then of ``confusion``.

    No collective inside.
    """

    @tf.function(autograph=False)
    def evaluate_batch(image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, *sources: tf.Tensor) -> tf.Tensor:
        outputs = forward(config, network, image, label, *sources)
        sums_V = columns(config, outputs, image, label, weight, *sources)
        return tf.concat([sums_V, confusion(outputs, label, weight)], 0) if has_confusion(config) else sums_V

    def of_batch(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        sources = [batch["sources"]] if "sources" in batch else []
        return evaluate_batch(batch["image"], batch["label"], batch["weight"], *sources)

    return of_batch


def forward(config: RunConfig, network: CapsNet, image: tf.Tensor, label: tf.Tensor, *sources: tf.Tensor) -> Outputs:
    """What a network makes of test images, which know their labels only to put two reconstructions in order."""
    outputs = network(_as_trained(config, image), objects=config.objects)
    return losses.in_order_of(label, outputs) if sources else outputs


def columns(
    config: RunConfig, outputs: Outputs, image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, *sources: tf.Tensor
) -> tf.Tensor:
    """Weighted sums over a batch, float64: of the records, and of each value by ``value_names``."""
    found = losses.loss_terms(config.loss, outputs, sources[0] if sources else _as_trained(config, image), label)
    found["accuracy"] = losses.correct(outputs, label)
    if has_top5(config):
        found["top5"] = losses.in_top(outputs, label)
    values = [tf.ones_like(weight), *(found[name] for name in value_names(config))]
    return tf.stack([tf.reduce_sum(tf.cast(v, tf.float64) * tf.cast(weight, tf.float64)) for v in values])


def confusion(outputs: Outputs, label_B: tf.Tensor, weight_B: tf.Tensor) -> tf.Tensor:
    """Weighted sums [J x J], float64: for each right class the classes that were found."""
    classes = outputs.class_scores_BJ.shape[-1]
    cell_B = tf.cast(label_B, tf.int64) * classes + longest(outputs.class_scores_BJ, 1)
    return tf.math.unsorted_segment_sum(tf.cast(weight_B, tf.float64), cell_B, classes**2)


def has_confusion(config: RunConfig) -> bool:
    """Whether a score has it: one class in an image, of not too many."""
    return config.objects == 1 and config.model.classes <= MOST_CONFUSED


def has_top5(config: RunConfig) -> bool:
    """Whether top-5 accuracy says anything: more classes than that, and one of them in an image."""
    return config.objects == 1 and config.model.classes > losses.TOP


def value_names(config: RunConfig) -> tuple[str, ...]:
    """Means that a score has, the loss excepted, which is the sum of its terms."""
    return "accuracy", *(["top5"] if has_top5(config) else []), *term_names(config)


def term_names(config: RunConfig) -> tuple[str, ...]:
    return losses.term_names(config.loss, bool(config.model.decoder.hidden))


def _as_trained(config: RunConfig, image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float64 if config.train.precision == "float64" else tf.float32)


def evaluate(
    config: RunConfig,
    evaluate_batch: EvaluateBatch,
    batches: Iterable[dict[str, tf.Tensor]],
    world: World,
    before_batch: Callable[[int], None] = lambda number: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Score:
    """Scores the network on this rank's batches and adds up over ranks, in one collective at the end.

    A stop request breaks the loop on the rank that has it; the others learn of it in the sum.
    """
    names = value_names(config)
    classes = config.model.classes if has_confusion(config) else 0
    sums = tf.zeros([1 + len(names) + classes**2], tf.float64)
    stopped = False
    for number, batch in enumerate(batches):
        before_batch(number)
        if stop_requested():
            stopped = True
            break
        sums += evaluate_batch(batch)
    records, *totals, stops = distributed.sum_values(world, [*sums.numpy().tolist(), float(stopped)], "evaluation")
    means, cells = totals[: len(names)], totals[len(names) :]
    values = {name: total / max(records, 1.0) for name, total in zip(names, means, strict=True)}
    values["loss"] = sum(values[name] for name in term_names(config))
    confusion_JJ = np.rint(cells).astype(np.int64).reshape(classes, classes) if classes else None
    return Score(round(records), values, stops > 0, confusion_JJ)


def check_complete(config: RunConfig, index: Index, score: Score) -> None:
    """Raises DataError where more test records were damaged than are tolerated."""
    missing = data_index.split_of(index, config.data.test_split).records - score.records
    if not score.stopped and missing > config.data.tolerate_damaged:
        raise DataError(
            f"{missing} damaged test records, data.tolerate_damaged is {config.data.tolerate_damaged}: "
            f"'capsnet data verify {config.data.uri}' lists them"
        )
