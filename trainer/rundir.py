"""The folder of a run: names of its files, its lock, and taking it back to a step.

runs/quick-20260101-120000/
    config.json       the whole configuration; 'capsnet train --from-run DIR' takes it
    checkpoints/      see checkpoint.py
    metrics.jsonl     one record a line
    log.txt           what was printed, with times
    events.out.*      for TensorBoard
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from trainer import config as configuration
from trainer.config import RunConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.storage import atomic_write

LOCK_PATIENCE_SECONDS = 5.0
"""The ranks of a run that was killed notice it within about a second; a resume waits for them."""


class RunDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        return self.config.exists()

    def lock(self) -> None:
        """Makes this process the only writer until it ends; the kernel releases the lock however it ends.

        Raises:
            CheckpointError: another process has it.
            ConfigError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}); choose another with --run") from None
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.read(self._lock, 32).decode().strip() or "unknown"
                    raise CheckpointError(
                        f"{self.path}: in use by another process (pid {holder}); wait for it, stop it, or choose "
                        "another folder with --run"
                    ) from None
                time.sleep(0.1)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def write_config(self, config: RunConfig) -> None:
        atomic_write(self.config, configuration.dump(config).encode())

    def take_back_metrics(self, step: int, evaluated_step: int) -> None:
        """Removes records beyond a step, evaluations beyond the last that counts, and a line cut short."""
        if not self.metrics.exists():
            return
        kept = [
            line for line in self.metrics.read_bytes().splitlines(keepends=True) if _is_kept(line, step, evaluated_step)
        ]
        atomic_write(self.metrics, b"".join(kept))


def _is_kept(line: bytes, step: int, evaluated_step: int) -> bool:
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and record["step"] <= (evaluated_step if record["kind"] == "test" else step)


def new_path(recipe: str, root: Path = Path("runs")) -> Path:
    """A folder that does not exist yet, named after recipe and time."""
    base = root / f"{recipe or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
