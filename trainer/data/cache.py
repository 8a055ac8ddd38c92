"""A folder of fetched pieces, bounded in bytes, shared by all processes of a machine and by later runs.

The folder is its own ledger. ``KEY.piece`` is whole; ``KEY.part`` is being fetched by the process that holds a lock on
it, and has its full length from the start, so that the sum of lengths is what is spoken for. Space is given out under
the lock on ``lock``, in milliseconds; fetching is not. A killed process loses its locks, and the next one sweeps up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from trainer import storage
from trainer.errors import ConfigError

PIECE, PART = ".piece", ".part"
POLL_SECONDS = 0.01


class Got(Enum):
    """What became of a wish."""

    READY = "it is there"
    BUSY = "another thread or process is fetching it"
    FULL = "everything that lies there is needed sooner"


class PieceCache:
    """Pieces by key. Safe to use from many threads and processes."""

    def __init__(self, folder: Path, bound: int) -> None:
        """Raises ConfigError where the folder cannot be made or written."""
        self.folder, self.bound = folder, bound
        self._lock = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be written ({error.strerror}); set storage.cache_dir to a folder that can, "
                "or storage.cache_bytes to 0"
            ) from None

    def read(self, key: str, offset: int, length: int) -> bytes | None:
        """Bytes of a piece; None where it is not there."""
        try:
            return storage.read_range(self._path(key, PIECE), offset, length)
        except FileNotFoundError:
            return None

    def forget(self, key: str) -> None:
        """Drops a piece, as one that is found to be damaged."""
        self._path(key, PIECE).unlink(missing_ok=True)

    def fetch(
        self, key: str, size: int, fill: Callable[[], Iterable[bytes]], next_use: Callable[[str], float], mine: float
    ) -> Got:
        """Sees to it that a piece is there, if there is room, without fetching anything twice.

        Args:
            fill: gives the ``size`` bytes in parts; called at most once.
            next_use: when another piece will be needed; what is needed last is dropped first, and nothing that is
                needed as soon as ``mine`` or sooner.

        Raises:
            OSError: the folder cannot be written; whatever ``fill`` raises. Nothing of the piece is left then.
        """
        with self._locked():
            part = self._path(key, PART)
            if _is_being_fetched(part):
                return Got.BUSY
            if self._path(key, PIECE).exists():
                return Got.READY
            descriptor = self._reserve(part, size, next_use, mine)
        if descriptor is None:
            return Got.FULL
        try:
            written = 0
            for part_of_it in fill():
                data = memoryview(part_of_it)
                while data:
                    count = os.pwrite(descriptor, data, written)
                    data, written = data[count:], written + count
            if written != size:
                raise ValueError(f"{written} bytes came for a piece of {size}")
            with self._locked():  # whoever adds up lengths must not miss it between two names
                os.rename(part, self._path(key, PIECE))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return Got.READY

    def wait(self, key: str) -> None:
        """Until nobody is fetching the piece any more."""
        while _is_being_fetched(self._path(key, PART)):
            time.sleep(POLL_SECONDS)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / (key + suffix)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _reserve(self, part: Path, size: int, next_use: Callable[[str], float], mine: float) -> int | None:
        """A locked file of full length, after dropping what must go for it; None where there is no room."""
        needed = size + self._swept() - self.bound
        victims: list[Path] = []
        if needed > 0:
            for _, _, freed, path in sorted(self._droppable(next_use, mine)):
                victims.append(path)
                needed -= freed
                if needed <= 0:
                    break
            else:
                return None
        for path in victims:
            path.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            part.unlink()
            os.close(descriptor)
            if error.errno == errno.ENOSPC:  # the disk is smaller than the bound
                return None
            raise
        return descriptor

    def _swept(self) -> int:
        """Bytes that are spoken for, after removing what killed processes left."""
        total = 0
        for entry in self._entries():
            if entry.name.endswith(PART) and not _is_being_fetched(Path(entry.path)):
                Path(entry.path).unlink(missing_ok=True)
            else:
                with suppress(FileNotFoundError):  # a fetch that failed, a piece found damaged
                    total += entry.stat().st_size
        return total

    def _droppable(self, next_use: Callable[[str], float], mine: float) -> Iterator[tuple[float, float, int, Path]]:
        """(-next use, age, bytes, path): sorted, what can go first comes first."""
        for entry in self._entries():
            if entry.name.endswith(PIECE):
                use = next_use(entry.name.removesuffix(PIECE))
                if use > mine:
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        yield -use, status.st_mtime, status.st_size, Path(entry.path)

    def _entries(self) -> list[os.DirEntry[str]]:
        """Pieces and parts; under the lock they can vanish, but neither appear nor change their names."""
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if entry.name.endswith((PIECE, PART))]


def _is_being_fetched(part: Path) -> bool:
    """Whether a living process holds the lock of a part."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
