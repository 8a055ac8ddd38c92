"""metrics.jsonl: one JSON record a line, each with its step, written by rank 0."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any

from trainer.errors import InterruptedRun


class MetricsFile:
    """Appends records; each is with the operating system when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: IO[str] = path.open("a")
        except OSError as error:
            raise InterruptedRun(f"{path}: not written ({error.strerror}); make room or mend it and resume") from None

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Raises InterruptedRun where the disk is full. Values that are not finite become null, as JSON has none."""
        record: dict[str, Any] = {"kind": kind, "step": step}
        record |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise InterruptedRun(f"{self._path}: not written ({error.strerror}); make room and resume") from None

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
