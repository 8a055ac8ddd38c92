"""Decoding a part of a JPEG, at full and at reduced size, against Pillow and NumPy."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config import RunConfig, with_overrides
from trainer.data import augment
from trainer.data.decoding import Reading, fitted

CONFIG = with_overrides(
    RunConfig(), {"model.channels": 3, "data.augment.resize": "random_resized_crop", "model.image_size": 64}
)


@dataclass
class Picture:
    height: int
    width: int

    def smooth(self) -> np.ndarray:
        """Colours that change slowly, so that any right way of scaling gives nearly the same."""
        y, x = np.mgrid[: self.height, : self.width]
        return np.stack([255 * y / self.height, 255 * x / self.width, 128 + 60 * np.sin(x / 60)], -1).astype(np.uint8)

    def jpeg(self, mode: str = "RGB") -> bytes:
        stream = io.BytesIO()
        Image.fromarray(self.smooth()).convert(mode).save(stream, "JPEG", quality=95)
        return stream.getvalue()


def reading(training: bool, scaled: bool, size: int = 64) -> Reading:
    config = with_overrides(CONFIG, {"data.scaled_decoding": scaled, "model.image_size": size})
    return Reading(config, None, None, training)  # type: ignore[arg-type]


@pytest.mark.parametrize("sides", [(500, 375), (375, 500), (64, 64), (1201, 803), (40, 900), (33, 31)])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_reduced_decoding_sees_the_same_part(sides: tuple[int, int], size: int) -> None:
    encoded = Picture(*sides).jpeg()
    draws = augment.draws(0, 0, np.arange(8))
    for draws_D in draws:
        full = fitted(tf.constant(encoded), tf.constant(draws_D), reading(True, False, size)).numpy().astype(float)
        part = fitted(tf.constant(encoded), tf.constant(draws_D), reading(True, True, size)).numpy().astype(float)
        assert part.shape == (size, size, 3)
        # a start that is rounded to the grid of the reduced image shifts the part by less than one of its pixels,
        # which are at most 255 / size apart in colour, and decoders round
        assert np.abs(full - part).mean() < 255 / size + 2
    full = fitted(tf.constant(encoded), tf.constant(draws[0]), reading(False, False, size)).numpy().astype(float)
    part = fitted(tf.constant(encoded), tf.constant(draws[0]), reading(False, True, size)).numpy().astype(float)
    assert np.abs(full - part).mean() < 255 / size + 2


def test_gray_becomes_colour_and_png_is_taken() -> None:
    draws = augment.draws(0, 0, np.arange(1))[0]
    gray = fitted(tf.constant(Picture(300, 200).jpeg("L")), tf.constant(draws), reading(True, True)).numpy()
    assert gray.shape == (64, 64, 3)
    assert (gray[..., 0] == gray[..., 2]).all()
    stream = io.BytesIO()
    Image.fromarray(Picture(300, 200).smooth()).save(stream, "PNG")
    png = fitted(tf.constant(stream.getvalue()), tf.constant(draws), reading(True, True)).numpy()
    exact = fitted(tf.constant(stream.getvalue()), tf.constant(draws), reading(True, False)).numpy()
    assert (png == exact).all()


@pytest.mark.parametrize("encoded", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0" + bytes(100), b"text"])
def test_what_is_no_image_is_an_error(encoded: bytes) -> None:
    with pytest.raises(tf.errors.OpError):
        fitted(tf.constant(encoded), tf.constant(augment.draws(0, 0, np.arange(1))[0]), reading(True, True))
