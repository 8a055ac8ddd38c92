"""Every local path and gs:// operation behind one set of functions.

Failures of local files pass as OSError; those of Cloud Storage are StorageError (it may pass), StorageRefused (it will
not; ObjectMissing where there is no such object) and ObjectChanged, each with a line for a person.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from trainer.config import StorageConfig
from trainer.errors import ConfigError, ObjectChanged, ObjectMissing, StorageError
from trainer.storage import cloud, local
from trainer.storage.answers import SCHEME, split
from trainer.storage.cloud import Entry
from trainer.storage.connection import connected
from trainer.storage.local import sync_folder
from trainer.storage.retry import PassingError

Location = str | os.PathLike[str]
POLICY = StorageConfig()
_standing = [POLICY]
REPLACED_TIMES = 10

__all__ = [
    "Checksum",
    "Entry",
    "Location",
    "atomic_write",
    "cache_folder",
    "chunks",
    "crc32c",
    "create",
    "delete",
    "first_objects",
    "identity",
    "is_cloud",
    "join",
    "listing",
    "local_place",
    "make_folder",
    "place",
    "read_bytes",
    "read_now",
    "read_range",
    "stand_by",
    "standing",
    "stat",
    "swap",
    "sync_folder",
]


def is_cloud(location: Location) -> bool:
    return isinstance(location, str) and location.startswith(SCHEME)


def place(text: str) -> Location:
    """What a person typed: a place in a bucket as text, or a local one.

    Raises:
        StorageRefused: no bucket is named.
        ConfigError: of the remote places it is none of Cloud Storage.
    """
    if is_cloud(text):
        split(text)
        return text.rstrip("/")
    return local_place(text, "give a local folder or gs://BUCKET/...")


def local_place(text: str, mend: str = "give a place on this machine") -> Path:
    """Raises ConfigError where it is not on this machine."""
    if "://" in text:
        raise ConfigError(f"{text}: cannot be used here; {mend}")
    return Path(text)


def join(folder: Location, *names: str) -> Location:
    """A place below a folder, of the same kind."""
    if is_cloud(folder):
        return "/".join((str(folder).rstrip("/"), *names))
    return Path(folder, *names)


def cache_folder(policy: StorageConfig = POLICY) -> Path:
    """Where what comes from the cloud is kept on this machine, unless the configuration says where."""
    if policy.cache_dir:
        return Path(policy.cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capsnet"


def identity() -> str:
    """Whose credentials this process has for Cloud Storage, in words. Raises StorageRefused where they are broken."""
    return connected().identity


def stand_by(policy: StorageConfig) -> None:
    """What this process keeps to from now on wherever no policy is given; its children are to be told."""
    _standing[0] = policy


def standing() -> StorageConfig:
    return _standing[0]


def listing(folder: Location, policy: StorageConfig | None = None) -> dict[str, Entry]:
    """Everything below ``folder``, by its path relative to it; hidden local files are left out."""
    if is_cloud(folder):
        return cloud.listing(str(folder), policy or standing())
    return {name: Entry(size, None, 0) for name, size in local.file_sizes(Path(folder)).items()}


def first_objects(folder: str, most: int, policy: StorageConfig | None = None) -> dict[str, Entry]:
    """As ``listing`` of a place in a bucket, but not more than so many: one request where that is a page."""
    return cloud.listing(folder, policy or standing(), most)


def read_bytes(location: Location, policy: StorageConfig | None = None) -> bytes:
    """The whole file or object, its checksum compared where one is known; of an object the one that is there now."""
    if not is_cloud(location):
        return local.read_bytes(location)
    return read_now(str(location), policy)[0]


def read_now(location: str, policy: StorageConfig | None = None) -> tuple[bytes, Entry]:
    """An object of Cloud Storage that may be replaced meanwhile, and which one it was.

    Raises:
        ObjectChanged: it was replaced again and again while it was read.
    """
    for _ in range(REPLACED_TIMES - 1):
        entry = _entry(location, policy)
        with contextlib.suppress(ObjectChanged):
            return cloud.read(location, entry, 0, entry.bytes, policy or standing()), entry
    entry = _entry(location, policy)
    return cloud.read(location, entry, 0, entry.bytes, policy or standing()), entry


def read_range(
    location: Location, offset: int, length: int, policy: StorageConfig | None = None, entry: Entry | None = None
) -> bytes:
    """``length`` bytes from ``offset`` on, of the generation that ``entry`` says; fewer where it ends before."""
    if not is_cloud(location):
        return local.read_range(location, offset, length)
    return cloud.read(str(location), entry or _entry(str(location), policy), offset, length, policy or standing())


def chunks(
    location: Location, entry: Entry, offset: int = 0, length: int | None = None, policy: StorageConfig | None = None
) -> Iterator[bytes]:
    """Bytes of a file or object in parts, as they come, fewer where it ends before.

    Raises:
        StorageError: the whole object came with another checksum than ``entry`` says. That is known only after its
            last part was given: who cannot take parts back compares for himself.
    """
    stop = entry.bytes if length is None else min(entry.bytes, offset + length)
    if is_cloud(location):
        try:
            yield from cloud.chunks(str(location), entry, offset, max(0, stop - offset), policy or standing())
        except PassingError as error:
            raise StorageError(f"{location}: {error}; read it again") from None
        return
    with open(location, "rb") as file:
        file.seek(offset)
        while offset < stop and (part := file.read(min(cloud.CHUNK_BYTES, stop - offset))):
            offset += len(part)
            yield part


def atomic_write(location: Location, data: bytes, policy: StorageConfig | None = None) -> None:
    """Makes ``location`` hold ``data``, or leaves what was there; a local folder must exist."""
    if is_cloud(location):
        cloud.write(str(location), data, policy or standing())
    else:
        local.atomic_write(location, data)


def create(location: Location, data: bytes | Path, policy: StorageConfig | None = None) -> None:
    """As ``atomic_write`` of bytes or a file, but only where there is nothing yet.

    Raises:
        FileExistsError, ObjectChanged: there is something already (local, Cloud Storage).
    """
    if is_cloud(location):
        cloud.write(str(location), data, policy or standing(), generation=0)
    else:
        local.create(Path(location), data.read_bytes() if isinstance(data, Path) else data)


def stat(location: str, policy: StorageConfig | None = None) -> Entry | None:
    """Of an object in Cloud Storage; None where there is none."""
    return cloud.stat(location, policy or standing())


def swap(location: str, data: bytes, generation: int, policy: StorageConfig | None = None) -> Entry:
    """Replaces one generation of an object in Cloud Storage, 0 for none yet, and no other.

    Raises:
        ObjectChanged: another one is there.
    """
    return cloud.write(location, data, policy or standing(), generation=generation)


def delete(location: Location, policy: StorageConfig | None = None) -> None:
    """Removes a file or object, if it is there."""
    if is_cloud(location):
        cloud.delete(str(location), policy or standing())
    else:
        Path(location).unlink(missing_ok=True)


def make_folder(location: Location) -> None:
    """Makes a local folder with its parents; prefixes in a bucket need no making."""
    if not is_cloud(location):
        Path(location).mkdir(parents=True, exist_ok=True)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) as an unsigned integer, the checksum of Cloud Storage and of TFRecord."""
    return int(google_crc32c.value(data))


class Checksum:
    """A CRC-32C of bytes as they come."""

    def __init__(self) -> None:
        self._checksum = google_crc32c.Checksum()

    def update(self, data: bytes) -> None:
        self._checksum.update(data)

    @property
    def value(self) -> int:
        return int.from_bytes(self._checksum.digest(), "big")


def _entry(location: str, policy: StorageConfig | None) -> Entry:
    entry = cloud.stat(location, policy or standing())
    if entry is None:
        raise ObjectMissing(f"{location}: there is no such object; check the name")
    return entry
