"""Reading and writing local files. Errors of the operating system pass through as OSError."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Makes ``path`` hold ``data``, or leaves what was there; its folder must exist.

    Raises:
        OSError: not written (no space, no permission, no folder); nothing half-written is left.
    """
    _write(Path(path), data, os.replace)


def create(path: Path, data: bytes) -> None:
    """As ``atomic_write``, but raises FileExistsError where there is something already."""

    def link(temporary: Path, target: Path) -> None:
        os.link(temporary, target)
        temporary.unlink()

    _write(path, data, link)


def _write(target: Path, data: bytes, place: Callable[[Path, Path], None]) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        place(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename within ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole file. Raises OSError."""
    return Path(path).read_bytes()


def read_range(path: str | os.PathLike[str], offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset`` on; fewer where the file ends before. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while length > 0 and (part := os.pread(descriptor, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each plain file below ``folder``, by path relative to it, hidden ones left out. Raises OSError."""
    found: dict[str, int] = {}
    for at, folders, files in os.walk(folder, onerror=raise_it):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                path = Path(at, name)
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def raise_it(error: OSError) -> None:
    """For ``os.walk``, which leaves out what it cannot read."""
    raise error
