"""CIFAR-10 and CIFAR-100 from the official binary archives, or folders of them, as lossless PNG."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import NamedTuple

from trainer.data.prepare.request import CIFAR, Found, Item
from trainer.errors import DataError

PLANES = 3072
LICENCE = "by Alex Krizhevsky, for research; no licence is stated with it: cite 'Learning Multiple Layers of Features'"


class Official(NamedTuple):
    """What an archive is known to be; its files hold records of ``labels`` bytes, the last of which is used."""

    archive: str
    bytes: int
    md5: str
    labels: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str


KINDS = {
    "cifar10": Official(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c32a1d4ab5d03f1284b67883e8d87530",
        1,
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        ("test_batch.bin",),
        "batches.meta.txt",
    ),
    "cifar100": Official(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "03b5dce01913d631647c71ecec9e9cb8",
        2,
        ("train.bin",),
        ("test.bin",),
        "fine_label_names.txt",
    ),
}


def find(source: Path, kind: str, official: Official | None = None) -> Found:
    """Reads the archive, a folder that holds it, or an unpacked folder. Raises DataError."""
    official = official or KINDS[kind]
    if source.is_dir() and (source / official.archive).is_file():
        source = source / official.archive
    wanted = (*official.train, *official.test, official.names)
    files = _unpacked(source, wanted) if source.is_dir() else _packed(source, official, wanted)
    missing = [name for name in wanted if name not in files]
    if missing:
        raise DataError(f"{source}: {missing[0]} is missing; unpack or download {official.archive} again")
    classes = tuple(files[official.names].decode().split())
    splits = {
        split: [item for name in names for item in _items(source, name, files[name], official.labels, len(classes))]
        for split, names in (("train", official.train), ("test", official.test))
    }
    return Found(kind, classes, splits, LICENCE)


def _unpacked(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    places = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    place = next((place for place in places if (place / wanted[0]).is_file()), folder)
    return {name: (place / name).read_bytes() for name in wanted if (place / name).is_file()}


def _packed(archive: Path, official: Official, wanted: tuple[str, ...]) -> dict[str, bytes]:
    size = archive.stat().st_size
    if size != official.bytes:
        raise DataError(f"{archive}: has {size} bytes, {official.archive} has {official.bytes}; download it again")
    with open(archive, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != official.md5:
        raise DataError(f"{archive}: its md5 is {md5}, that of {official.archive} {official.md5}; download it again")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                content = tar.extractfile(member) if member.isfile() and name in wanted else None
                if content is not None:
                    files[name] = content.read()
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); download it again") from None
    return files


def _items(source: Path, name: str, data: bytes, labels: int, classes: int) -> list[Item]:
    size = labels + PLANES
    if not data or len(data) % size:
        raise DataError(
            f"{source}: {name} has {len(data)} bytes, not a multiple of {size}; unpack or download it again"
        )
    items = []
    for number, at in enumerate(range(0, len(data), size)):
        label = data[at + labels - 1]
        if label >= classes:
            raise DataError(f"{source}: {name}: record {number}: label {label} is not in 0..{classes - 1}")
        planes = data[at + labels : at + size]
        items.append(Item(f"{name}/{number:05d}", label, "", 0, len(planes), CIFAR, data=planes))
    return items
