"""What each rank of a run in a bucket logged, attempt by attempt, stored while it grows.

    logs/000003/rank-00001.txt/000000

A pod takes its log with it, and only rank 0 has a run directory: its log.txt, of all attempts, lies beside these.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import time
from pathlib import Path

from trainer.config import StorageConfig
from trainer.errors import CapsnetError
from trainer.output import streams
from trainer.storage import POLICY, join, listing, read_bytes

FOLDER = "logs"
HURRIED = StorageConfig(deadline_seconds=2, stall_seconds=2, first_wait_seconds=0.2)
"""A rank that leaves has no time for a log that cannot be stored."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z) (.*)")
_NAME = re.compile(r"(\d+)/rank-(\d+)\.txt/\d+")


class StoredLog(logging.FileHandler):
    """A log file of this machine that is stored as it grows; closing it stores the rest."""

    def __init__(self, output: str, generation: int, rank: int) -> None:
        self._here = tempfile.TemporaryDirectory(prefix="capsnet-log-")
        folder = Path(self._here.name)
        super().__init__(folder / f"rank-{rank:05d}.txt")
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        self._streams = streams.Streams(output, generation, folder, lambda _line: None, FOLDER, HURRIED)
        self._streams.follow()
        self._over = False

    def close(self) -> None:
        super().close()
        if not self._over:
            self._over = True
            with contextlib.suppress(CapsnetError):  # the run ends with something else to say
                self._streams.close()
            self._here.cleanup()


Lines = list[tuple[str, str]]
"""Time and text of lines; a line of a traceback has the time of the one before."""


def read(output: str, policy: StorageConfig = POLICY) -> dict[int, dict[int, Lines]]:
    """By attempt and rank. Raises StorageError, StorageRefused."""
    place = join(output, FOLDER)
    texts: dict[int, dict[int, bytes]] = {}
    for name in sorted(listing(place, policy)):
        found = _NAME.fullmatch(name)
        if found:
            of_attempt = texts.setdefault(int(found[1]), {})
            of_attempt[int(found[2])] = of_attempt.get(int(found[2]), b"") + read_bytes(join(place, name), policy)
    return {
        attempt: {rank: _lines(text.decode(errors="replace")) for rank, text in ranks.items()}
        for attempt, ranks in texts.items()
    }


def _lines(text: str) -> Lines:
    lines: Lines = []
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        lines.append((found[1], found[2]) if found else (lines[-1][0] if lines else "", line))
    return lines
