"""One image as people have it: kept byte for byte, made an RGB image where it is odd, or refused.

Orientation in Exif is ignored on purpose: training ignores it too.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

SMALL_PIXELS = 128
QUALITY = 95
KEPT_MODES = {"L": 1, "RGB": 3}
JPEG_NAMES = (".jpg", ".jpeg")
VALUES_V = np.arange(256)
LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")

Image.preinit()


class BadImage(Exception):
    """Not an image, or not a whole one; says why."""


class Looked(NamedTuple):
    """An image as it is stored. ``sums`` (pixels, totals, squares of each channel) only where it was counted."""

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    sums: tuple[int, tuple[int, ...], tuple[int, ...]] | None
    converted: str


def look(data: bytes, name: str, sampled: bool) -> Looked:
    """Decodes an image: a large JPEG at an eighth, unless it is ``sampled`` for mean and deviation.

    Raises:
        BadImage: it cannot be decoded to its end.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            odd = _oddity(image, kind, name)
            if odd:
                data, kind = _as_rgb(image, kind)
                image = Image.open(io.BytesIO(data))
            width, height = image.size
            counted = sampled or max(width, height) <= SMALL_PIXELS
            if kind == "JPEG" and not counted:
                image.draft(image.mode, (max(width // 8, 1), max(height // 8, 1)))
            image.load()
            sums = _sums(image) if counted else None
    except UnidentifiedImageError:  # whose message holds an address
        raise BadImage("empty" if not data else "not an image that Pillow knows") from None
    except Exception as error:  # decoders raise whatever they like at damaged bytes
        raise BadImage(" ".join(f"{error or type(error).__name__}".split())) from None
    return Looked(data, kind.lower(), height, width, KEPT_MODES[image.mode], sums, odd)


def _oddity(image: Image.Image, kind: str, name: str) -> str:
    """Why an image cannot be kept as it is; empty where it can."""
    if kind not in ("JPEG", "PNG"):
        return f"a {kind} file"
    if kind == "PNG" and name.lower().endswith(JPEG_NAMES):
        return "a PNG file in spite of its name"
    if image.mode not in KEPT_MODES or "transparency" in image.info:
        return f"{kind} of mode {image.mode}" + (" with transparency" if "transparency" in image.info else "")
    return ""


def _as_rgb(image: Image.Image, kind: str) -> tuple[bytes, str]:
    """(bytes, format): PNG for small lossless pictures, else JPEG without chroma subsampling; alpha is dropped."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating point pixels")
    rgb = image.convert("RGB")
    out = io.BytesIO()
    if kind in LOSSLESS and max(rgb.size) <= SMALL_PIXELS:
        rgb.save(out, "PNG")
        return out.getvalue(), "PNG"
    rgb.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue(), "JPEG"


def _sums(image: Image.Image) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """From histograms, which Pillow makes several times as fast as NumPy adds up squares of bytes."""
    counts_CV = np.array(image.histogram(), np.int64).reshape(-1, len(VALUES_V))
    totals_C, squares_C = counts_CV @ VALUES_V, counts_CV @ VALUES_V**2
    return image.width * image.height, tuple(map(int, totals_C)), tuple(map(int, squares_C))


def png_of_planes(planes: bytes, side: int = 32) -> bytes:
    """Three planes of bytes, as CIFAR stores them, as a PNG."""
    out = io.BytesIO()
    Image.fromarray(np.frombuffer(planes, np.uint8).reshape(3, side, side).transpose(1, 2, 0)).save(out, "PNG")
    return out.getvalue()
