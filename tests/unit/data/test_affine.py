"""The affine test split, against loops over pixels in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data.small_sets import SmallSet
from tests.unit.data.test_pipeline import equal, taken
from trainer.config import STANDARD_AFFINE, AffineConfig, with_overrides
from trainer.data import augment
from trainer.data.affine import backward, transformed
from trainer.data.pipeline import test_batches, train_batches

test_batches.__test__ = False  # type: ignore[attr-defined]  # it only sounds like a test

MakeSet = Callable[..., SmallSet]
BOUNDS = AffineConfig(rotation=40, shear=0.3, scale=0.25, shift=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 9, 12, 3), dtype=np.uint8)
DRAWS = augment.draws(7, 0, np.arange(8))


def forward(draws_D: np.ndarray, bounds: AffineConfig) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, shift) that take a point (x, y), seen from the centre, to where it comes to lie."""

    def between(column: int, most: float) -> float:
        return float(2 * draws_D[column] - 1) * most

    angle = math.radians(between(augment.ROTATION, bounds.rotation))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, between(augment.SHEAR, bounds.shear)], [0, 1]])
    scale = np.diag([1 + between(augment.SCALE_X, bounds.scale), 1 + between(augment.SCALE_Y, bounds.scale)])
    shift = np.array([between(augment.SHIFT_X, bounds.shift), between(augment.SHIFT_Y, bounds.shift)])
    return rotation @ shear @ scale, shift


def by_loops(image: np.ndarray, draws_D: np.ndarray, bounds: AffineConfig) -> np.ndarray:
    height, width = image.shape[:2]
    matrix, shift = forward(draws_D, bounds)
    inverse, centre = np.linalg.inv(matrix), np.array([(width - 1) / 2, (height - 1) / 2])
    out = np.zeros(image.shape)
    for y, x in np.ndindex(height, width):
        from_x, from_y = inverse @ (np.array([x, y]) - centre - shift) + centre
        left, top = math.floor(from_x), math.floor(from_y)
        for row, column in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
            if 0 <= row < height and 0 <= column < width:
                out[y, x] += (1 - abs(from_y - row)) * (1 - abs(from_x - column)) * image[row, column]
    return out


@pytest.mark.parametrize(
    "bounds",
    [
        BOUNDS,
        STANDARD_AFFINE,
        AffineConfig(rotation=180),
        AffineConfig(shear=1),
        AffineConfig(scale=0.9),
        AffineConfig(shift=20),
    ],
)
def test_images_against_loops(bounds: AffineConfig) -> None:
    found = transformed(tf.constant(IMAGES), tf.constant(DRAWS), bounds)
    assert found.dtype == tf.uint8
    for image, draws_D, out in zip(IMAGES, DRAWS, found.numpy(), strict=True):
        # rounding to whole values, and coordinates in float32
        np.testing.assert_allclose(out, by_loops(image, draws_D, bounds), atol=0.51)


def test_the_matrix_is_the_inverse_of_what_is_said() -> None:
    found_B8 = backward(tf.constant(DRAWS), BOUNDS, 9, 12).numpy()
    for draws_D, (a, b, c, d, e, f, g, h) in zip(DRAWS, found_B8, strict=True):
        matrix, shift = forward(draws_D, BOUNDS)
        centre = np.array([5.5, 4])
        for point in np.random.default_rng(1).normal(size=(3, 2)):
            there = matrix @ point + shift + centre
            back = np.array([a * there[0] + b * there[1] + c, d * there[0] + e * there[1] + f])
            np.testing.assert_allclose(back, point + centre, atol=1e-5)
        assert (g, h) == (0, 0)


def test_bounds_of_zero_change_nothing() -> None:
    assert not AffineConfig().enabled
    np.testing.assert_array_equal(transformed(tf.constant(IMAGES), tf.constant(DRAWS), AffineConfig()), IMAGES)


def test_transforms_stay_within_the_bounds_and_reach_them() -> None:
    draws = augment.draws(0, 0, np.arange(2000))
    matrices = np.stack([forward(draws_D, STANDARD_AFFINE)[0] for draws_D in draws])
    shifts = np.stack([forward(draws_D, STANDARD_AFFINE)[1] for draws_D in draws])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    areas = np.linalg.det(matrices)
    for values, low, high in [(angles, -20, 20), (areas, 0.64, 1.44), (shifts, -2, 2)]:
        assert low <= values.min() < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < values.max() <= high


def test_the_test_split_is_transformed_and_training_is_not(small_set: MakeSet) -> None:
    made = small_set()
    config = with_overrides(made.config, {f"data.affine.{name}": value for name, value in STANDARD_AFFINE})
    plain, moved = (taken(test_batches(one, made.index, 0, 1)) for one in (made.config, config))
    for before, after in zip(plain, moved, strict=True):
        np.testing.assert_array_equal(before["label"], after["label"])
        expected = transformed(
            tf.constant(np.round(before["image"] * 255).astype(np.uint8)),
            tf.constant(augment.draws(0, 0, before["id"])),
            STANDARD_AFFINE,
        )
        np.testing.assert_array_equal(after["image"], augment.to_unit(expected))
        assert (before["image"] != after["image"]).any(axis=(1, 2, 3)).all()
    equal(*(taken(train_batches(one, made.index, 0, 1, 0, 3)) for one in (made.config, config)))


@pytest.mark.parametrize("size", [2, 3])
def test_it_is_the_same_at_any_number_of_ranks(small_set: MakeSet, size: int) -> None:
    made = small_set(overrides={f"data.affine.{name}": value for name, value in STANDARD_AFFINE})

    def images(ranks: int) -> np.ndarray:
        batches = [b for rank in range(ranks) for b in taken(test_batches(made.config, made.index, rank, ranks))]
        return np.concatenate([b["image"][b["weight"] > 0] for b in batches])

    np.testing.assert_array_equal(images(size), images(1))
