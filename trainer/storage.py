"""Reading and writing files, checksums. Local paths only for now; gs:// will live here and nowhere else.

Errors of the operating system pass through as OSError: what they mean is the caller's to say.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import google_crc32c

Location = str | os.PathLike[str]


def atomic_write(path: Location, data: bytes) -> None:
    """Makes ``path`` hold ``data``, or leaves what was there; its folder must exist.

    Raises:
        OSError: not written (no space, no permission, no folder); nothing half-written is left.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
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


def read_bytes(path: Location) -> bytes:
    """The whole file. Raises OSError."""
    return Path(path).read_bytes()


def read_range(path: Location, offset: int, length: int) -> bytes:
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


def file_sizes(folder: Location) -> dict[str, int]:
    """Bytes of each plain file in ``folder``, by name. Raises OSError."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) as an unsigned integer, the checksum of Cloud Storage and of TFRecord."""
    return int(google_crc32c.value(data))
