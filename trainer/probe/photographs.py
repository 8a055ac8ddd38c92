"""JPEG that cost what photographs do: smooth shapes under grain. Of nothing; for timing, not for learning."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SHAPE = 8
"""Pixels of a shape, across."""
GRAIN = 12
QUALITY = 90


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """Of 500 x 375 pixels they have the bytes of ImageNet's (about 110 kB)."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        shapes = random.integers(0, 256, (-(-height // SHAPE), -(-width // SHAPE), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(shapes).resize((width, height)), np.int16)
        grain = smooth + random.integers(-GRAIN, GRAIN + 1, (height, width, 3))
        stream = io.BytesIO()
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
        encoded.append(stream.getvalue())
    return encoded
