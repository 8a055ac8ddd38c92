"""The files of a run that grow (metrics, log, events) in a bucket, whose objects cannot be appended to.

    streams/000003/begun                             the attempt's files were stored as they were at its beginning
    streams/000003/metrics.jsonl/000000              whole: PART_BYTES
    streams/000003/metrics.jsonl/000001              the last, which is replaced as it grows

Each attempt at the run stores its files anew, as they were taken back to the checkpoint: the newest one that has begun
is all that there is to read.

    plugins/profile/2026_11_27_08_00_00/host.xplane.pb

A profile is a whole file, of no attempt: it stays when the run is taken back to before it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config import StorageConfig
from trainer.errors import CapsnetError, ObjectChanged, ObjectMissing, StorageError
from trainer.storage import POLICY, Entry, atomic_write, delete, join, listing, read_range

FOLDER, BEGUN = "streams", "begun"
PART_BYTES = 2**20
PAUSE_SECONDS = 5.0
LOOKS = 3
"""At what changes while it is read: ranks that nobody watches any more write until they notice."""
HERE = "checkpoints/"
"""The folder of a run directory that is stored by others."""
PROFILES = "plugins"
"""The folder of profiles, where TensorBoard looks for them."""


@dataclass
class _Sent:
    """How far a file is stored. ``inode`` tells a file that was replaced from one that grew."""

    inode: int
    bytes: int = 0


class Streams:
    """Stores the files of a run directory as they grow, from a thread of its own once ``follow`` was called."""

    def __init__(
        self,
        output: str,
        generation: int,
        run: Path,
        say: Callable[[str], None],
        folder: str = FOLDER,
        policy: StorageConfig = POLICY,
    ) -> None:
        self._output = output.rstrip("/")
        self._place = f"{self._output}/{folder}/{generation:06d}"
        self._run, self._say, self._policy = run, say, policy
        self._sent: dict[str, _Sent] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Stores what is there, then says that it is. Raises StorageError, StorageRefused."""
        self.send()
        atomic_write(f"{self._place}/{BEGUN}", b"")

    def follow(self) -> None:
        self._thread = threading.Thread(target=self._follow, name="streams", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stores the rest. Raises StorageError, StorageRefused."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.send()

    def send(self) -> None:
        """Stores what came since. Raises StorageError, StorageRefused."""
        with self._lock:
            for path in sorted(self._run.rglob("*")):
                name = path.relative_to(self._run).as_posix()
                if path.is_file() and not name.startswith((HERE, ".")):
                    (self._send_whole if name.startswith(f"{PROFILES}/") else self._send)(name, path)

    def _send_whole(self, name: str, path: Path) -> None:
        status = path.stat()
        now = _Sent(status.st_ino, status.st_size)
        if self._sent.get(name) != now:  # again where it was still being written
            atomic_write(f"{self._output}/{name}", path.read_bytes(), self._policy)
            self._sent[name] = now

    def _send(self, name: str, path: Path) -> None:
        status = path.stat()
        sent = self._sent.get(name)
        if sent is None or sent.inode != status.st_ino or status.st_size < sent.bytes:
            sent = self._sent[name] = _Sent(status.st_ino)
        while sent.bytes < status.st_size:
            number = sent.bytes // PART_BYTES
            data = read_range(path, number * PART_BYTES, PART_BYTES)
            atomic_write(f"{self._place}/{name}/{number:06d}", data, self._policy)
            sent.bytes = number * PART_BYTES + len(data)

    def _follow(self) -> None:
        silent = False
        while not self._over.wait(PAUSE_SECONDS):
            try:
                self.send()
                silent = False
            except (CapsnetError, OSError) as error:  # the next turn stores what this one could not
                if not silent:
                    self._say(f"{error}; metrics and events follow when it answers again")
                silent = True


@dataclass(frozen=True)
class Stored:
    """The newest streams of a run: ``parts`` of each file, in order, as (location, entry)."""

    generation: int
    parts: Mapping[str, tuple[tuple[str, Entry], ...]]


def newest(output: str, policy: StorageConfig = POLICY) -> Stored | None:
    """What the newest attempt that has begun has stored; None where there is none."""
    return newest_of(output, listing(join(output, FOLDER), policy))


def newest_of(output: str, found: Mapping[str, Entry]) -> Stored | None:
    """The same from a listing of the folder of streams."""
    begun = [int(name.split("/")[0]) for name in found if name.endswith(f"/{BEGUN}") and name.count("/") == 1]
    if not begun:
        return None
    generation = max(begun)
    parts: dict[str, list[tuple[str, Entry]]] = {}
    for name in sorted(found):
        attempt, _, rest = name.partition("/")
        file, _, part = rest.rpartition("/")
        if int(attempt) == generation and file and part.isdigit():
            parts.setdefault(file, []).append((f"{output.rstrip('/')}/{FOLDER}/{name}", found[name]))
    return Stored(generation, {file: tuple(each) for file, each in parts.items()})


def fetch(output: str, run: Path) -> None:
    """Puts the newest streams into a run directory. Raises StorageError, StorageRefused."""
    for _ in range(LOOKS):
        with contextlib.suppress(ObjectChanged, ObjectMissing):
            return _fetch(output, run)
    raise StorageError(f"{output}: its metrics and events change while they are fetched; an attempt still writes them")


def _fetch(output: str, run: Path) -> None:
    """Raises ObjectChanged, ObjectMissing where the bucket is no longer what was listed."""
    stored = newest(output)
    for file, parts in (stored.parts if stored else {}).items():
        path = run / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as target:
            for location, entry in parts:
                target.write(read_range(location, 0, entry.bytes, entry=entry))


def forget_before(output: str, generation: int) -> None:
    """Removes the streams of earlier attempts. Raises StorageError, StorageRefused."""
    for name in listing(join(output, FOLDER)):
        if int(name.split("/")[0]) < generation:
            delete(f"{output.rstrip('/')}/{FOLDER}/{name}")
