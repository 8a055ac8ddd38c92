"""What a training counts of its test records.

Axes: B batch, J classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.summaries.boards import CLASSES, configured
from trainer import evaluation
from trainer.distributed import World
from trainer.model.network import Outputs


def test_confusion_is_what_a_loop_counts() -> None:
    config = configured()
    random = np.random.default_rng(0)
    expected_JJ, batches = np.zeros([CLASSES, CLASSES], np.int64), []
    for _ in range(3):
        scores_BJ = random.random([16, CLASSES], np.float32)
        label_B, weight_B = random.integers(0, CLASSES, 16), random.integers(0, 2, 16)  # of weight 0: padding
        for scores_J, label, weight in zip(scores_BJ, label_B, weight_B, strict=True):
            expected_JJ[label, scores_J.argmax()] += weight
        batches.append({"scores": scores_BJ, "label": label_B.astype(np.int32), "weight": weight_B})

    def count(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        outputs = Outputs(tf.constant(batch["scores"]), None, None, {})
        others_V = tf.zeros([1 + len(evaluation.value_names(config))], tf.float64)
        return tf.concat([others_V, evaluation.confusion(outputs, batch["label"], batch["weight"])], 0)

    score = evaluation.evaluate(config, count, batches, World())
    np.testing.assert_array_equal(score.confusion_JJ, expected_JJ)


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"model__classes": 100}, True),
        ({"model__classes": 101}, False),
        ({"data__overlap__enabled": True, "data__overlap__shift": 1, "data__augment__shift": 0}, False),
    ],
)
def test_of_pairs_or_many_classes_none_is_counted(fields: dict[str, object], counted: bool) -> None:
    assert evaluation.has_confusion(configured(**fields)) == counted
