"""Pictures against the numbers that they are made of.

Axes: N records, H W image, C channels, I children, J parents, R routing iterations, Q class pose size, S steps.
"""

from __future__ import annotations

import numpy as np
import pytest

from trainer.summaries import pictures


@pytest.mark.parametrize(
    ("count", "size", "channels", "shape"),
    [
        (1, 28, 1, (64, 120, 1)),
        (3, 32, 3, (40, 208, 3)),
        (40, 28, 1, (4 + 4 * 60, 4 + 4 * 116, 1)),
        (16, 224, 3, (232, 908, 3)),
        (5, 1024, 3, (1032, 2056, 3)),
    ],
)
def test_sizes_of_pictures(count: int, size: int, channels: int, shape: tuple[int, ...]) -> None:
    images_NHWC = np.full((count, size, size, channels), 2.0)
    assert pictures.side_by_side(images_NHWC, images_NHWC).shape == shape


def test_a_picture_of_scenes_shows_both_reconstructions() -> None:
    rng = np.random.default_rng(0)
    images, both = rng.random((5, 28, 28, 1)), rng.random((5, 2, 28, 28, 1))
    picture = pictures.side_by_side(images, both)
    gap = pictures.GAP
    cell = 3 * 56 + gap  # 28 pixels as 56
    assert picture.shape == (gap + 2 * (56 + gap), gap + 4 * cell, 1)
    shown = picture[gap : gap + 56 : 2, gap + cell : gap + cell + 3 * 56 : 2] / 255
    expected = np.concatenate([images[1], both[1, 0], both[1, 1]], axis=1)
    np.testing.assert_allclose(shown, expected, atol=0.5 / 255 + 1e-9)


def test_a_pose_is_varied_in_rows() -> None:
    made = np.random.default_rng(0).random((3, 5, 28, 28, 1))
    picture = pictures.varied(made)
    gap, cell = pictures.GAP, 28 + pictures.GAP
    assert picture.shape == (gap + 3 * cell, gap + 5 * cell, 1)
    for number in range(3):
        for step in range(5):
            top, left = gap + number * cell, gap + step * cell
            shown = picture[top : top + 28, left : left + 28] / 255
            np.testing.assert_allclose(shown, made[number, step], atol=0.5 / 255 + 1e-9)


def test_large_images_are_varied_in_fewer_rows() -> None:
    assert pictures.varied(np.zeros((16, 11, 128, 128, 3))).shape[0] == pictures.GAP + 5 * (128 + pictures.GAP)


def test_a_coupling_map_is_the_flow_to_the_winner() -> None:
    """Against loops over children, types fastest on the grid."""
    rng = np.random.default_rng(1)
    iterations, records, side, types, parents = 2, 3, 4, 5, 6
    images = rng.random((4, 8, 8, 3))
    coupling = rng.random((iterations, records, side * side * types, parents))
    activations = rng.random((records, side * side * types))
    winner = np.array([4, 0, 5])
    picture = pictures.coupling_maps(images, coupling, activations, winner, side)
    factor, gap = 7, pictures.GAP  # 8 pixels as 56
    cell = 8 * factor + gap
    assert picture.shape == (gap + records * cell, gap + (1 + iterations) * cell, 3)
    for n in range(records):
        for r in range(iterations):
            flow = np.zeros((side, side))
            for child in range(side * side * types):
                row, column = divmod(child // types, side)
                flow[row, column] += coupling[r, n, child, winner[n]] * activations[n, child]
            top, left = gap + n * cell, gap + (1 + r) * cell
            shown = picture[top : top + 8 * factor : 2 * factor, left : left + 8 * factor : 2 * factor, 0] / 255
            np.testing.assert_allclose(shown, flow / flow.max(), atol=0.5 / 255 + 1e-9)
        shown = picture[gap + n * cell : gap + n * cell + 56 : factor, gap : gap + 56 : factor] / 255
        np.testing.assert_allclose(shown, images[n], atol=0.5 / 255 + 1e-9)
