"""The layout of Tiny ImageNet: train/<class>/images/<image>, val/images/<image> beside a file of their classes."""

from __future__ import annotations

from pathlib import Path

from trainer.data.prepare.request import Item
from trainer.errors import DataError

IMAGES, ANNOTATIONS = "images", "val_annotations.txt"
Tree = list[tuple[tuple[str, ...], Item]]


def is_tiny(source: Path) -> bool:
    """Whether a folder has folders train/<class>/images."""
    train = source / "train"
    return train.is_dir() and any((path / IMAGES).is_dir() for path in train.iterdir())


def rearranged(tree: Tree) -> Tree:
    """Such a tree as <split>/<class>/<image>, what has no class by its name alone; another tree as it is.

    Raises:
        DataError: the file of the classes cannot be read.
    """
    top = next((parts[:-4] for parts, _ in tree if _is_train(parts)), None)
    if top is None:
        return tree
    classes = _classes(next((item for parts, item in tree if parts == (*top, "val", ANNOTATIONS)), None))
    found: Tree = []
    for parts, item in tree:
        match parts[len(top) :]:
            case (split, name, "images", image):
                found.append(((split, name, image), item))
            case ("val", "images", image) if image in classes:
                found.append((("val", classes[image], image), item))
            case _:
                found.append(((item.name,), item))
    return found


def _is_train(parts: tuple[str, ...]) -> bool:
    return parts[-4:-3] == ("train",) and parts[-2] == IMAGES


def _classes(annotations: Item | None) -> dict[str, str]:
    """Of each image of val, by its name."""
    if annotations is None:
        return {}
    try:
        lines = annotations.read().decode().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{annotations.path}: {annotations.name} cannot be read ({error}); unpack it again") from None
    return {words[0]: words[1] for line in lines if len(words := line.split()) > 1}
