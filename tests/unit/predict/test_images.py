"""From files to pixels: as the pipeline of the tests has them, and by an oracle of Pillow and NumPy.

Axes: H W grid, C channels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config import RunConfig, with_overrides
from trainer.data import augment
from trainer.data.decoding import Reading, fitted
from trainer.data.index import Index, load_index
from trainer.data.prepare.images import BadImage, look
from trainer.data.prepare.request import FILE, Item
from trainer.predict.images import Sizes, pixels_of, reader, reader_for_export

Array = np.ndarray


def smooth(height: int, width: int, channels: int = 3) -> Array:
    """Colours that change slowly, so that resizing by another library gives nearly the same."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * y / height, 255 * x / width, 128 + 60 * np.sin(x / width * 6)]
    return np.stack(planes[:channels], -1).round().astype(np.uint8)


def encoded(pixels: Array, kind: str = "PNG", mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels.squeeze())
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def configured(**fields: Any) -> RunConfig:
    return with_overrides(RunConfig(), {name.replace("__", "."): value for name, value in fields.items()})


def colour(resize: str, size: int) -> RunConfig:
    return configured(model__channels=3, model__image_size=size, data__augment__resize=resize)


def index_of(side: int, other: int | None = None) -> Index:
    index = load_index("embedded")
    size = {"height_min": side, "height_max": other or side, "width_min": side, "width_max": other or side}
    return index.model_copy(update={"image": index.image.model_copy(update=size)})


@pytest.mark.parametrize(
    ("resize", "size", "side"),
    [("none", 40, 40), ("crop", 24, 40), ("whole", 24, None), ("random_resized_crop", 24, None)],
)
@pytest.mark.parametrize("data", ["PNG", "JPEG", "CMYK", "RGBA", "P"])
def test_an_image_of_the_data_sets_size_is_what_the_tests_see(
    resize: str, size: int, side: int | None, data: str
) -> None:
    pixels = smooth(side or 150, side or 200)
    file = encoded(pixels, "JPEG" if data in ("JPEG", "CMYK") else "PNG", None if data in ("PNG", "JPEG") else data)
    config = colour(resize, size)
    found = reader(config, Sizes.of(config, index_of(side or 10, None if side else 500)))(file, "x")
    stored = look(file, "x", sampled=False).encoded  # what 'data prepare' keeps
    reading = Reading(config, None, None, training=False)  # type: ignore[arg-type]
    expected = fitted(tf.constant(stored), tf.zeros([augment.DRAWS], tf.float64), reading)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("sides", [(90, 120), (120, 90), (20, 31), (300, 301)])
@pytest.mark.parametrize(("resize", "size", "side"), [("none", 40, 40), ("crop", 24, 40)])
def test_other_sizes_give_their_central_square(sides: tuple[int, int], resize: str, size: int, side: int) -> None:
    pixels = smooth(*sides)
    config = colour(resize, size)
    found = reader(config, Sizes.of(config, index_of(side)))(encoded(pixels), "x")
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    shorter = min(sides)
    top, left = (sides[0] - shorter) // 2, (sides[1] - shorter) // 2
    square = Image.fromarray(pixels[top : top + shorter, left : left + shorter])
    whole = np.asarray(square.resize((side, side), Image.Resampling.BILINEAR)).astype(float)
    margin = (side - size) // 2
    expected = whole[margin : margin + size, margin : margin + size]
    assert np.abs(found - expected).max() <= 2  # both round, and Pillow rounds its filter to 8 bits as well


def test_crops_of_a_set_of_many_sizes_are_taken_of_images_as_they_are() -> None:
    config = colour("crop", 24)
    sizes = Sizes.of(config, index_of(24, 500))
    pixels = smooth(60, 80)
    np.testing.assert_array_equal(reader(config, sizes)(encoded(pixels), "x"), pixels[18:42, 28:52])
    assert reader(config, sizes)(encoded(smooth(10, 30)), "x").shape == (24, 24, 3)  # too small: enlarged
    assert sizes == Sizes.of(config, None)


def test_gray_networks_see_gray_and_colour_networks_three_channels() -> None:
    gray = smooth(28, 28, 1)
    assert reader(configured(), Sizes(28, "none"))(encoded(smooth(28, 28)), "x").shape == (28, 28, 1)
    np.testing.assert_array_equal(reader(configured(), Sizes(28, "none"))(encoded(gray), "x"), gray)
    found = reader(colour("none", 28), Sizes(28, "none"))(encoded(gray), "x")
    np.testing.assert_array_equal(found, np.repeat(gray, 3, axis=-1))
    deep = encoded(gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(reader(configured(), Sizes(28, "none"))(deep, "x"), gray)


def test_scenes_are_fitted_as_a_whole() -> None:
    config = configured(data__overlap__enabled=True, model__image_size=36)
    assert Sizes.of(config, index_of(28)) == Sizes(36, "none")


def test_an_export_gets_images_of_the_size_that_it_preprocesses() -> None:
    for resize, size, side, expected in [("none", 40, 40, 40), ("crop", 24, 40, 40), ("crop", 24, None, 60)]:
        config = colour(resize, size)
        sizes = Sizes.of(config, index_of(side) if side else None)
        found = reader_for_export(config, sizes)(encoded(smooth(60, 60)), "x")
        assert found.shape == (expected, expected, 3)
    config = colour("random_resized_crop", 24)
    pixels = smooth(60, 80)
    np.testing.assert_array_equal(reader_for_export(config, Sizes.of(config, None))(encoded(pixels), "x"), pixels)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", encoded(smooth(90, 90), "JPEG")[:700], encoded(smooth(9, 9))[:60]]
)
def test_what_is_no_image_is_said_in_a_line(data: bytes) -> None:
    with pytest.raises(BadImage) as caught:
        reader(configured(), Sizes(28, "none"))(data, "x.png")
    assert 0 < len(str(caught.value).splitlines()[0]) == len(str(caught.value)) <= 80


def test_images_come_in_order_with_what_is_wrong_in_its_place(tmp_path: Path) -> None:
    items = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(np.full([28, 28], number, np.uint8)))
        items.append(Item(path.name, 0, str(path), 0, path.stat().st_size, FILE))
    (tmp_path / "3.png").write_bytes(b"?" * items[3].length)
    (tmp_path / "7.png").unlink()
    (tmp_path / "9.png").write_bytes(b"short")
    found = list(pixels_of(items, reader(configured(), Sizes(28, "none")), threads=3, ahead=4))
    assert found[3] == "not an image that Pillow knows"
    assert found[7] == "cannot be read (No such file or directory)"
    assert "truncated" in found[9]
    assert [int(pixels[0, 0, 0]) for pixels in found if not isinstance(pixels, str)] == [
        number for number in range(20) if number not in (3, 7, 9)
    ]
