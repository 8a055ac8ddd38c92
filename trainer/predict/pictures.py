"""An image beside what the decoder makes of its class capsule, with a line of text, as PNG.

Axes: H W image, C channels, N objects of an image.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from trainer.data.contact import INK, PAPER, TEXT, font
from trainer.summaries.pictures import side_by_side

SIDE = 168  # smaller images are enlarged by a whole factor that comes close to it
MARGIN, LINE = 4, 20
NAME = 60


def name(number: int, file: str) -> str:
    """Of the picture of the image in that row of the CSV, from 1."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePath(file).stem)[:NAME]
    return f"{number:06d}-{stem}.png"


def picture(image_HWC: NDArray[np.uint8], reconstruction: NDArray[Any], found: Sequence[tuple[str, str]]) -> bytes:
    """
    Args:
        reconstruction: in 0..1, [H, W, C] or of each of several objects [N, H, W, C].
        found: classes that the capsules stand for, with their scores.
    """
    beside_HWC = side_by_side(image_HWC[np.newaxis] / 255, reconstruction[np.newaxis], cell=SIDE)
    drawn = Image.fromarray(beside_HWC.squeeze(-1) if beside_HWC.shape[-1] == 1 else beside_HWC).convert("RGB")
    text = ", ".join(f"{label} {float(score):.2f}" for label, score in found)
    width = max(drawn.width, int(font(TEXT).getlength(text)) + 2 * MARGIN)
    whole = Image.new("RGB", (width, drawn.height + LINE), PAPER)
    whole.paste(drawn)
    ImageDraw.Draw(whole).text((MARGIN, drawn.height + 1), text, fill=INK, font=font(TEXT))
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    return stream.getvalue()
