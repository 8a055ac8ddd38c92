"""What is asked for, and what a source was found to hold. Everything here travels to worker processes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainer import storage
from trainer.errors import DataError

KINDS = ("cifar10", "cifar100", "imagenet", "folder", "tfrecord")
FILE, STORED, DEFLATED, CIFAR = "file", "stored", "deflated", "cifar"
ZIP_HEADER_BYTES = 30

Report = Callable[[int, int], None]
"""Progress: how many are done, of how many; 0 where that is not known."""


def silent(done: int, total: int) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class Request:
    """The command, parsed. ``workers`` None: as many as cores and memory allow."""

    source: Path
    destination: storage.Location
    kind: str = "auto"
    name: str = ""
    licence: str = ""
    command: str = ""
    seed: int = 0
    shards: dict[str, int] = field(default_factory=dict)
    held_out: float = 0.1
    bad_share: float = 0.001
    workers: int | None = None
    names: Path | None = None


class Item(NamedTuple):
    """One image of a source: its name (data, never a path), class, and where its bytes are."""

    name: str
    label: int
    path: str
    offset: int
    length: int
    how: str = FILE
    unpacked: int = 0
    crc32: int = 0
    data: bytes | None = None

    def read(self) -> bytes:
        """The bytes as the source holds them. Raises OSError, ValueError where they are not all there."""
        if self.data is not None:
            return self.data
        at = self.offset
        zipped = self.how in (STORED, DEFLATED)
        if zipped:
            header = storage.read_range(self.path, at, ZIP_HEADER_BYTES)
            at += ZIP_HEADER_BYTES + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        found = storage.read_range(self.path, at, self.length)
        if len(found) != self.length:
            raise ValueError(f"truncated, {len(found)} of {self.length} bytes are there")
        if not zipped:
            return found
        if self.how == DEFLATED:
            found = _inflated(found, self.unpacked)
        if zlib.crc32(found) != self.crc32:
            raise ValueError("its checksum in the archive is wrong")
        return found


def _inflated(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(data, size)
    except zlib.error as error:
        raise ValueError(f"damaged in the archive ({error})") from None


@dataclass(frozen=True)
class Found:
    """The contents of a source, in an order that does not depend on the machine."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    licence: str
    descriptions: tuple[str, ...] = ()
    shards: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(f"data set {self.name}: {len(self.classes)} classes were found, 2 or more are needed")
