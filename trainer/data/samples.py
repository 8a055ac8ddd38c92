"""A few images of a data set for people to look at, from as few blocks as will do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer import storage
from trainer.data.index import Index, shards_of, split_of
from trainer.data.records import read_block
from trainer.data.source import Source
from trainer.data.tfrecord import decode_example
from trainer.errors import DataError

FEW_CLASSES = 20
IMAGES_OF_CLASS = 8
MOST_CLASSES = 100
MOST_BLOCKS = 64
REREADS = 3
MOST_BYTES = 64 * 2**20


@dataclass
class Samples:
    """Encoded images by class number; ``records`` were read for them, ``unusable`` of these could not be."""

    split: str
    images: dict[int, list[bytes]] = field(default_factory=dict)
    records: int = 0
    unusable: int = 0


def take(uri: str, index: Index, name: str) -> Samples:
    """Up to 8 images of each of up to 20 classes; of more classes one of each, of up to 100 that are chosen evenly.

    Blocks are read in an order that covers the split evenly, until there is enough or 64 blocks or 64 MiB were read.

    Raises:
        DataError: a block is damaged. StorageError, StorageRefused: a bucket cannot be read.
    """
    split, folder = split_of(index, name), shards_of(uri, index)
    source, samples = Source(folder, split), Samples(name)
    few = len(index.classes) <= FEW_CLASSES
    of_class = IMAGES_OF_CLASS if few else 1
    wanted = {label: min(of_class, count) for label, count in enumerate(split.class_records) if count}
    enough = len(wanted) if len(wanted) <= MOST_CLASSES else min(len(wanted), 2 * MOST_CLASSES)
    places = [(shard, block) for shard, entry in enumerate(split.shards) for block in range(len(entry.blocks))]
    size = 0
    for at in list(spread(len(places)))[:MOST_BLOCKS]:
        shard, block = places[at]
        for serialized in _block(source, shard, block):
            _add(serialized, index, of_class, samples)
        size += split.shards[shard].blocks[block].bytes
        full = sum(len(images) >= wanted.get(label, 0) for label, images in samples.images.items())
        if full >= enough or size >= MOST_BYTES:
            break
    chosen = evenly(sorted(samples.images), MOST_CLASSES)
    samples.images = {label: samples.images[label] for label in chosen}
    return samples


def spread(count: int) -> Iterator[int]:
    """The numbers below ``count`` in an order whose every beginning covers them evenly: by their bits reversed."""
    bits = max(1, (count - 1).bit_length())
    return iter(sorted(range(count), key=lambda number: f"{number:0{bits}b}"[::-1]))


def evenly(items: list[int], most: int) -> list[int]:
    """All, or ``most`` of them at even distances."""
    count = min(len(items), most)
    return [items[len(items) * number // count] for number in range(count)]


def _block(source: Source, shard: int, block: int) -> list[bytes]:
    for _ in range(REREADS if storage.is_cloud(source.folder) else 0):  # perhaps only the network did damage
        with contextlib.suppress(DataError):
            return read_block(source, shard, block)
    return read_block(source, shard, block)


def _add(serialized: bytes, index: Index, of_class: int, samples: Samples) -> None:
    samples.records += 1
    layout = index.layout
    try:
        example: dict[str, list[Any]] = decode_example(serialized)
        label, image = example[layout.label][0] - layout.first_label, example[layout.image][0]
        if not 0 <= label < len(index.classes):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError):
        samples.unusable += 1
        return
    images = samples.images.setdefault(label, [])
    if len(images) < of_class:
        images.append(image)
