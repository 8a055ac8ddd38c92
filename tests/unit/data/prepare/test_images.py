"""What becomes of each image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.unit.data.prepare.sources import encoded, pixels
from trainer.data.prepare.images import BadImage, look

RGB = Image.fromarray(pixels(1))
LARGE = Image.fromarray(pixels(2, 300))


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (encoded(RGB), "a.JPEG", "jpeg"),
        (encoded(RGB.convert("L")), "a.jpg", "jpeg"),
        (encoded(LARGE), "a.jpg", "jpeg"),
        (encoded(RGB, "PNG"), "a.png", "png"),
    ],
)
@pytest.mark.parametrize("sampled", [True, False])
def test_usual_images_are_kept_byte_for_byte(data: bytes, name: str, kind: str, sampled: bool) -> None:
    looked = look(data, name, sampled)
    assert (looked.encoded, looked.format, looked.converted) == (data, kind, "")
    image = Image.open(io.BytesIO(data))
    assert (looked.width, looked.height) == image.size
    if looked.sums is None:
        assert not sampled
        assert max(image.size) > 128
    else:
        values = np.asarray(image).astype(np.int64).reshape(image.width * image.height, -1)
        assert looked.sums == (len(values), tuple(values.sum(axis=0)), tuple((values**2).sum(axis=0)))


@pytest.mark.parametrize(
    ("image", "kind", "name"),
    [
        (RGB, "PNG", "a.JPEG"),
        (RGB.convert("CMYK"), "JPEG", "a.jpg"),
        (RGB.convert("P"), "PNG", "a.png"),
        (RGB.convert("RGBA"), "PNG", "a.png"),
        (RGB.convert("LA"), "PNG", "a.png"),
        (RGB.convert("1"), "PNG", "a.png"),
        (Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000), "PNG", "a.png"),
        (RGB, "BMP", "a.bmp"),
        (RGB, "GIF", "a.gif"),
        (RGB, "WEBP", "a.jpg"),
        (LARGE, "PNG", "a.JPEG"),
    ],
)
def test_odd_images_become_rgb(image: Image.Image, kind: str, name: str) -> None:
    looked = look(encoded(image, kind), name, True)
    stored = Image.open(io.BytesIO(looked.encoded))
    assert looked.converted
    assert (stored.mode, str(stored.format).lower(), stored.size) == ("RGB", looked.format, image.size)
    assert looked.channels == 3


def test_small_lossless_pictures_stay_lossless() -> None:
    looked = look(encoded(RGB, "BMP"), "a.bmp", True)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(looked.encoded))), pixels(1))


WHOLE = encoded(LARGE)


@pytest.mark.parametrize("data", [b"", b"a text\n", WHOLE[: len(WHOLE) // 2], WHOLE[:-30], encoded(RGB, "PNG")[:-30]])
@pytest.mark.parametrize("sampled", [True, False])
def test_what_is_no_whole_image_is_refused(data: bytes, sampled: bool) -> None:
    with pytest.raises(BadImage):
        look(data, "a.jpg", sampled)
