"""From what a person names to images: files, folders, patterns, zips. Nothing is read yet. Without TensorFlow."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from trainer.data.prepare import folder
from trainer.data.prepare.request import FILE, Item
from trainer.errors import ConfigError
from trainer.storage import is_cloud

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image in folders and zips, where not all files are meant."""


def found(words: Sequence[str]) -> tuple[list[Item], int]:
    """(images in the order of the words, how many other files folders and zips hold).

    Each image is named as a person would name it: by its path as typed, in a zip by that of the zip and its own.

    Raises:
        ConfigError: there is no such file, or no image at all. DataError: not a whole zip file.
    """
    items: list[Item] = []
    aside = 0
    for word in words:
        for path in _paths(word):
            more = _items(path)
            chosen = more if path.is_file() and not _is_zip(path) else [item for item in more if _is_image(item.name)]
            items += chosen
            aside += len(more) - len(chosen)
    if not items:
        raise ConfigError(f"{' '.join(words)}: no images ({', '.join(SUFFIXES[:4])}, ...) among {aside} files")
    return items, aside


def _paths(word: str) -> list[Path]:
    """A path as it stands, or all that a pattern matches, sorted."""
    if is_cloud(word):
        raise ConfigError(f"{word}: images are read from local files; copy them here first")
    if os.path.exists(word):
        return [Path(word)]
    matching = sorted(glob.glob(word, recursive=True))
    if not matching:
        raise ConfigError(f"{word}: no such file or folder, and nothing that it matches as a pattern")
    return [Path(path) for path in matching]


def _items(path: Path) -> list[Item]:
    if path.is_dir():
        return [item._replace(name=item.path) for _, item in folder.from_folder(path)]
    if _is_zip(path):
        return [item._replace(name=f"{path}/{item.name}") for _, item in folder.from_zip(path)]
    return [Item(str(path), 0, str(path), 0, path.stat().st_size, FILE)]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
