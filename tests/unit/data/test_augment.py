from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import AugmentConfig
from trainer.data import augment

IDS = np.array([0, 1, 7, 2**32, 5 * 2**32 + 3])
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)


def test_draws_are_uniform_and_a_function_of_seed_epoch_and_record() -> None:
    ids = np.arange(20_000)
    draws = augment.draws(3, 2, ids)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:  # the probability of a false alarm is below 1e-6 a column
        share, _ = np.histogram(column, 20, (0, 1))
        assert np.abs(share - 1000).max() < 170
    correlation = np.corrcoef(np.concatenate([draws, augment.draws(3, 3, ids), augment.draws(4, 2, ids)], axis=1).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.04
    some = np.array([17, 4, 19_999])
    np.testing.assert_array_equal(augment.draws(3, 2, some), draws[some])


def test_draws_are_those_that_earlier_runs_had() -> None:
    """Written down once: a change here means that no checkpoint resumes exactly."""
    assert augment.draws(2017, 3, IDS)[3, :3].tolist() == GOLDEN


def test_shift_and_flip_against_numpy() -> None:
    draws = augment.draws(1, 0, IDS)
    out = augment.shifted_and_flipped(tf.constant(IMAGES), draws, AugmentConfig(shift=2, flip=True)).numpy()
    flips = 0
    for image, drawn, result in zip(IMAGES, draws, out, strict=True):
        if drawn[augment.FLIP] < 0.5:
            image = image[:, ::-1]
            flips += 1
        top, left = (int(drawn[column] * 5) for column in (augment.SHIFT_Y, augment.SHIFT_X))
        padded = np.zeros((11, 13, 3), np.uint8)
        padded[2:9, 2:11] = image
        np.testing.assert_array_equal(result, padded[top : top + 7, left : left + 9])
    assert 0 < flips < 5


def test_no_augmentation_changes_nothing() -> None:
    draws = augment.draws(1, 0, IDS)
    np.testing.assert_array_equal(augment.shifted_and_flipped(tf.constant(IMAGES), draws, AugmentConfig()), IMAGES)


def test_random_crops_are_windows_and_reach_every_place() -> None:
    image = np.arange(5 * 6 * 1, dtype=np.uint8).reshape(5, 6, 1)
    seen = set()
    for drawn in augment.draws(0, 0, np.arange(200)):
        crop = augment.random_fit(tf.constant(image), 4, "crop", tf.constant(drawn)).numpy()
        top, left = divmod(int(crop[0, 0, 0]), 6)
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 4])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(2) for left in range(3)}


def test_random_resized_crops_keep_area_and_sides_within_bounds() -> None:
    """On a ramp, the range of values of a crop tells its extent."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 1))
    image = np.concatenate([ramp, ramp.transpose(1, 0, 2)], axis=2)
    areas = []
    for drawn in augment.draws(0, 0, np.arange(150)):
        crop = augment.random_fit(tf.constant(image), 100, "random_resized_crop", tf.constant(drawn)).numpy()
        assert crop.shape == (100, 100, 2)
        width, height = (int(crop[..., axis].max()) - int(crop[..., axis].min()) + 1 for axis in (0, 1))
        areas.append(width * height / 200**2)
    assert min(areas) > 0.07
    assert max(areas) <= 1
    assert min(areas) < 0.2
    assert max(areas) > 0.8


def test_a_whole_image_at_its_own_size_is_itself() -> None:
    drawn = np.zeros(augment.DRAWS)
    drawn[augment.AREA] = 1.0
    drawn[augment.ASPECT] = 0.5
    image = IMAGES[0, :, :7]
    result = augment.random_fit(tf.constant(image), 7, "random_resized_crop", tf.constant(drawn))
    np.testing.assert_array_equal(result, image)


def test_central_crop() -> None:
    np.testing.assert_array_equal(augment.central_fit(tf.constant(IMAGES), 4, "crop"), IMAGES[:, 1:5, 2:6])
    np.testing.assert_array_equal(augment.central_fit(tf.constant(IMAGES[0]), 4, "crop"), IMAGES[0, 1:5, 2:6])


def test_the_whole_image_is_resized_in_training_and_in_tests() -> None:
    image = np.arange(8 * 4, dtype=np.uint8).reshape(8, 4, 1)
    drawn = tf.constant(augment.draws(0, 0, np.arange(1))[0])
    halves = image.reshape(4, 2, 4, 1)
    assert augment.central_fit(tf.constant(image), 4, "whole").shape == (4, 4, 1)
    inner = augment.central_fit(tf.constant(image), 4, "whole").numpy()[1:-1]
    np.testing.assert_allclose(inner, halves.mean(axis=1)[1:-1], atol=1)  # between pixels, rounded
    np.testing.assert_array_equal(
        augment.random_fit(tf.constant(image), 4, "whole", drawn), augment.central_fit(tf.constant(image), 4, "whole")
    )


def test_central_square_is_seven_eighths_of_the_shorter_side() -> None:
    image = np.random.default_rng(1).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    result = augment.central_fit(tf.constant(image), 14, "random_resized_crop")
    np.testing.assert_array_equal(result, image[1:15, 3:17])
    assert augment.central_fit(tf.constant(image), 5, "random_resized_crop").shape == (5, 5, 3)


@pytest.mark.parametrize(("resize", "size"), [("none", 7), ("crop", 8)])
def test_an_image_that_cannot_fit_is_an_error(resize: str, size: int) -> None:
    image = tf.constant(IMAGES[0])
    with pytest.raises(tf.errors.InvalidArgumentError):
        augment.central_fit(image, size, resize)
    with pytest.raises(tf.errors.InvalidArgumentError):
        augment.random_fit(image, size, resize, tf.zeros(augment.DRAWS, tf.float64))


GOLDEN = [0.8743207381266688, 0.7064700052611751, 0.8686944764247037]
