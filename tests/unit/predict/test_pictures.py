"""An image beside its reconstruction, read back with Pillow. Axes: H W image, C channels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainer.predict import pictures
from trainer.summaries.pictures import GAP


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("objects", [1, 2])
def test_both_stand_side_by_side_above_what_was_found(channels: int, objects: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (28, 28, channels), np.uint8)
    several = rng.random((objects, 28, 28, channels))
    made = pictures.picture(image, several if objects > 1 else several[0], [("ant", "0.91")] * objects)
    with Image.open(io.BytesIO(made)) as opened:
        drawn = np.asarray(opened.convert("RGB"))
    factor = pictures.SIDE // 28
    cells = drawn[GAP : GAP + 28 * factor : factor, GAP : GAP + (1 + objects) * 28 * factor : factor]
    np.testing.assert_array_equal(cells[:, :28], np.broadcast_to(image, (28, 28, 3)))
    expected = np.concatenate(list(several), axis=1) * 255
    np.testing.assert_allclose(cells[:, 28:], np.broadcast_to(expected, cells[:, 28:].shape), atol=0.5 + 1e-9)
    assert drawn[-pictures.LINE :].min() < 100  # text


def test_names_tell_the_row_and_differ() -> None:
    assert pictures.name(7, "photos/a b.zip/x/shoe 1.JPEG") == "000007-shoe-1.png"
    assert pictures.name(1, "../../etc/..") == "000001-...png"
    assert pictures.name(1, "x" * 500 + ".png") == f"000001-{'x' * pictures.NAME}.png"
    assert "/" not in pictures.name(3, "a/b\\c\x00.png")
