"""A contact sheet: sample images of a data set with the names of their classes, as a PNG."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.data.index import Index
from trainer.data.samples import FEW_CLASSES, IMAGES_OF_CLASS, Samples

BOX, GAP = 112, 8
COLUMNS = 10
NAMES_WIDTH = 200
TEXT, TITLE, LINE = 14, 20, 17
CAPTION_LINES = 2
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
NO_IMAGE = (230, 230, 230)


@dataclass
class Sheet:
    image: Image.Image
    draw: ImageDraw.ImageDraw

    def text(self, x: int, y: int, line: str, colour: tuple[int, int, int] = INK, size: int = TEXT) -> None:
        self.draw.text((x, y), line, fill=colour, font=font(size))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def sheet(index: Index, samples: Samples) -> bytes:
    """The PNG: a row for each class where they are few, else a grid with a caption below each image."""
    drawn = _rows(index, samples) if len(index.classes) <= FEW_CLASSES else _grid(index, samples)
    out = io.BytesIO()
    drawn.image.save(out, "PNG")
    return out.getvalue()


def class_name(index: Index, label: int) -> str:
    """What people call a class."""
    return index.descriptions[label] if index.descriptions else index.classes[label]


def _rows(index: Index, samples: Samples) -> Sheet:
    made = _blank(index, samples, GAP + NAMES_WIDTH + IMAGES_OF_CLASS * (BOX + GAP), len(index.classes) * (BOX + GAP))
    top = made.image.height - len(index.classes) * (BOX + GAP)
    for label, name in enumerate(index.classes):
        y = top + label * (BOX + GAP)
        images = samples.images.get(label, [])
        lines = _wrapped(class_name(index, label), NAMES_WIDTH - 2 * GAP, 3)
        if index.descriptions and name != class_name(index, label):
            lines.append(name)
        for number, line in enumerate(lines):
            made.text(GAP, y + GAP + number * LINE, line)
        records = index.splits[samples.split].class_records[label]
        note = f"{records:,} records" if images else f"{records:,} records, none seen"
        made.text(GAP, y + GAP + len(lines) * LINE, note, FAINT)
        for number, encoded in enumerate(images):
            _place(made, encoded, GAP + NAMES_WIDTH + number * (BOX + GAP), y)
    return made


def _grid(index: Index, samples: Samples) -> Sheet:
    height = BOX + CAPTION_LINES * LINE + 2 * GAP
    rows = -(-len(samples.images) // COLUMNS)
    made = _blank(index, samples, GAP + COLUMNS * (BOX + GAP), rows * height)
    top = made.image.height - rows * height
    for number, (label, images) in enumerate(samples.images.items()):
        x, y = GAP + number % COLUMNS * (BOX + GAP), top + number // COLUMNS * height
        _place(made, images[0], x, y)
        for line, words in enumerate(_wrapped(class_name(index, label), BOX, CAPTION_LINES)):
            made.text(x, y + BOX + 2 + line * LINE, words)
    return made


def _blank(index: Index, samples: Samples, width: int, height: int) -> Sheet:
    """White, with the title above the room for the images."""
    top = 2 * GAP + TITLE + LINE + GAP
    image = Image.new("RGB", (width, top + height), PAPER)
    made = Sheet(image, ImageDraw.Draw(image))
    made.text(GAP, GAP, _shortened(f"{index.name}, split {samples.split}", width - 2 * GAP, TITLE), size=TITLE)
    made.text(GAP, GAP + TITLE + 4, described(index, samples), FAINT)
    return made


def described(index: Index, samples: Samples) -> str:
    """What is shown, in a line."""
    shown, classes = len(samples.images), len(index.classes)
    if classes <= FEW_CLASSES:
        return f"up to {IMAGES_OF_CLASS} images of each of {classes} classes, from {samples.records:,} records"
    if shown == classes:
        return f"an image of each of {classes:,} classes, from {samples.records:,} records"
    return f"an image of each of {shown:,} of {classes:,} classes, evenly chosen from {samples.records:,} records"


def _place(made: Sheet, encoded: bytes, x: int, y: int) -> None:
    """An image in the middle of its box, its aspect kept: small ones enlarged by a whole factor, large ones reduced."""
    try:
        image = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
        image.draft("RGB", (2 * BOX, 2 * BOX))
        deep = image.mode.startswith("I")  # 16 bits a pixel
        plain = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)) if deep else image
        shown = plain.convert("RGB")
    except Exception:  # decoders raise whatever they like at damaged bytes
        made.draw.rectangle((x, y, x + BOX - 1, y + BOX - 1), NO_IMAGE)
        made.text(x + GAP, y + BOX // 2 - GAP, "not an image", FAINT)
        return
    factor = BOX // max(shown.size)
    if factor:
        shown = shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
    else:
        shown.thumbnail((BOX, BOX), Image.Resampling.LANCZOS)
    made.image.paste(shown, (x + (BOX - shown.width) // 2, y + (BOX - shown.height) // 2))


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    """Lines that fit, the last shortened where there is more."""
    letters = max(4, int(width / font(TEXT).getlength("n")))
    found = textwrap.wrap(text, letters) or [""]
    while any(font(TEXT).getlength(line) > width for line in found) and letters > 4:
        letters -= 1
        found = textwrap.wrap(text, letters)
    if len(found) > lines:
        found = [*found[: lines - 1], " ".join(found[lines - 1 :])]
    return [_shortened(line, width, TEXT) for line in found]


def _shortened(line: str, width: int, size: int) -> str:
    if font(size).getlength(line) <= width:
        return line
    while line and font(size).getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip() + "..."
