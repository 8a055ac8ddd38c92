"""Labels of class x angle, against loops over pixels in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data.small_sets import SmallSet
from tests.unit.data.test_pipeline import taken
from trainer.config import RunConfig, with_overrides
from trainer.data import augment, index
from trainer.data.pipeline import test_batches, train_batches
from trainer.data.rotations import turned
from trainer.errors import ConfigError, DataError

test_batches.__test__ = False  # type: ignore[attr-defined]  # it only sounds like a test

MakeSet = Callable[..., SmallSet]

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 9, 9, 1), dtype=np.uint8)
LABELS = np.arange(16, dtype=np.int32) % 4
DRAWS = augment.draws(7, 0, np.arange(16))


def by_loops(image_HWC: np.ndarray, radians: float) -> np.ndarray:
    height, width = image_HWC.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    back = np.array([[math.cos(radians), math.sin(radians)], [-math.sin(radians), math.cos(radians)]])
    out = np.zeros(image_HWC.shape)
    for y, x in np.ndindex(height, width):
        from_x, from_y = np.round(back @ (np.array([x, y]) - centre) + centre, 9)
        left, top = math.floor(from_x), math.floor(from_y)
        for row, column in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
            if 0 <= row < height and 0 <= column < width:
                out[y, x] += (1 - abs(from_y - row)) * (1 - abs(from_x - column)) * image_HWC[row, column]
    return out


@pytest.mark.parametrize("count", [2, 3, 30])
def test_images_and_labels_against_loops(count: int) -> None:
    images, labels = (t.numpy() for t in turned(tf.constant(IMAGES), tf.constant(LABELS), tf.constant(DRAWS), count))
    assert labels.dtype == np.int32
    inner = np.s_[1:-1, 1:-1]  # at the edge a pixel that comes from just outside depends on rounding
    for image, label, draws_D, out, number in zip(IMAGES, LABELS, DRAWS, images, labels, strict=True):
        angle = math.floor(draws_D[augment.ANGLE] * count)
        assert number == label * count + angle
        # rounding to whole values, and coordinates in float32
        np.testing.assert_allclose(out[inner], by_loops(image, 2 * math.pi * angle / count)[inner], atol=0.51)


def test_a_quarter_turn_moves_pixels_and_makes_none() -> None:
    images, labels = (t.numpy() for t in turned(tf.constant(IMAGES), tf.constant(LABELS), tf.constant(DRAWS), 4))
    for image, out, number in zip(IMAGES, images, labels, strict=True):
        # float32 coordinates are off by some 1e-6, of values up to 255
        np.testing.assert_allclose(out, np.rot90(image, -(int(number) % 4)), atol=1)


def test_all_angles_come_and_evenly() -> None:
    draws = augment.draws(0, 0, np.arange(6000))
    blank = tf.zeros([6000, 2, 2, 1], tf.uint8)
    _, labels = turned(blank, tf.zeros([6000], tf.int32), tf.constant(draws), 30)
    counts = np.bincount(labels.numpy(), minlength=30)
    assert counts.min() > 200 - 5 * math.sqrt(200)  # five standard deviations of a count with mean 200
    assert counts.max() < 200 + 5 * math.sqrt(200)


def of_small(small: SmallSet, count: int) -> RunConfig:
    return with_overrides(small.config, {"data.rotations": count, "model.classes": count * small.config.model.classes})


def test_epochs_of_training_differ_and_tests_do_not(small_set: MakeSet) -> None:
    small = small_set()
    config = of_small(small, 5)
    tested = [taken(test_batches(config, small.index, 0, 1)) for _ in range(2)]
    for first, second in zip(*tested, strict=True):
        np.testing.assert_array_equal(first["label"], second["label"])
        np.testing.assert_array_equal(first["image"], second["image"])
    epoch = small.index.splits["train"].records // config.train.global_batch_size
    seen = taken(train_batches(config, small.index, 0, 1, 0, 2 * epoch))
    angles: dict[int, set[int]] = {}
    for batch in seen:
        for identity, label in zip(batch["id"], batch["label"], strict=True):
            angles.setdefault(int(identity), set()).add(int(label))
    assert any(len(labels) == 2 for labels in angles.values())
    assert all(len({label // 5 for label in labels}) == 1 for labels in angles.values())


def test_the_model_must_have_as_many_classes(small_set: MakeSet) -> None:
    small = small_set()
    index.check_fits(small.index, of_small(small, 5))
    with pytest.raises(DataError, match=r"at 5 angles \d+ labels, the model"):
        index.check_fits(small.index, with_overrides(small.config, {"data.rotations": 5}))
    names = index.label_names(small.index, of_small(small, 5))
    assert len(names) == len(set(names)) == 5 * len(small.index.classes)
    assert names[1] == f"{small.index.classes[0]} 72 deg"


def test_pairs_are_not_turned() -> None:
    with pytest.raises(ConfigError, match=r"data\.rotations"):
        with_overrides(RunConfig(), {"data.rotations": 2, "data.overlap.enabled": True, "model.image_size": 36})
