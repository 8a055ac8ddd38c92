"""Images in the Keras model against those that the run's tests see. Axes: B batch, H W image, C channels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.data import augment
from trainer.export import preprocessing


def both(resize: str, size: int, height: int, width: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(the Keras model's, the run's) float32 [B, size, size, C] in 0..1."""
    shape = (2, height, width, channels)
    images_BHWC = np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)
    entry = preprocessing.images_input(size, channels, resize)
    model = keras.Model(entry, preprocessing.fitted(entry, size, resize))
    expected = augment.to_unit(augment.central_fit(tf.constant(images_BHWC), size, resize))
    return np.asarray(model(images_BHWC)), expected.numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_none(channels: int) -> None:
    np.testing.assert_array_equal(*both("none", 9, 9, 9, channels))


@pytest.mark.parametrize(("height", "width"), [(24, 24), (32, 32), (25, 40), (31, 24), (27, 26)])
def test_central_crop(height: int, width: int) -> None:
    np.testing.assert_array_equal(*both("crop", 24, height, width))


@pytest.mark.parametrize(
    ("height", "width"), [(37, 37), (32, 32), (64, 64), (100, 75), (33, 217), (20, 21), (375, 500), (1, 1)]
)
def test_central_resized(height: int, width: int) -> None:
    ours, expected = both("random_resized_crop", 32, height, width)
    steps = np.abs(ours - expected) * 255
    assert np.max(steps) < 1.01  # a value between two whole numbers is rounded to one of them here, to the other there
    assert np.mean(steps > 0.5) < 0.01
    if min(height, width) == 37:  # 87.5 % of it are 32 pixels
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (100, 75), (20, 217), (1, 1)])
def test_the_whole_resized(height: int, width: int) -> None:
    ours, expected = both("whole", 32, height, width)
    steps = np.abs(ours - expected) * 255
    assert np.max(steps) < 1.01  # as above
    assert np.mean(steps > 0.5) < 0.01
    if height == 32:
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("resize", "message"), [("none", "expected shape=.None, 24, 24, 3."), ("crop", "is not in")])
def test_too_small(resize: str, message: str) -> None:
    entry = preprocessing.images_input(24, 3, resize)
    model = keras.Model(entry, preprocessing.fitted(entry, 24, resize))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        model(np.zeros([1, 20, 30, 3], np.uint8))
