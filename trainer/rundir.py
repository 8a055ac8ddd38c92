"""The folder of a run: names of its files, its lock, and taking it back to a step.

runs/quick-20260101-120000/
    config.json       the whole configuration; 'capsnet train --from-run DIR' takes it
    checkpoints/      see checkpoint.py
    metrics.jsonl     one record a line
    log.txt           what was printed, with times
    events.out.*      for TensorBoard
    evaluation/SET/   of 'capsnet evaluate': events of their own, beside the training's
    plugins/profile/  of steps that were profiled, for TensorBoard
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer import config as configuration
from trainer.config import RunConfig
from trainer.errors import CheckpointError, ConfigError, InterruptedRun
from trainer.storage import Location, atomic_write

EVALUATION = "evaluation"
LOCK = ".lock"
LOCK_PATIENCE_SECONDS = 5.0
"""The ranks of a run that was killed notice it within about a second; a resume waits for them."""


class RunDirectory:
    """``shown``: what a person calls it, where that is not its path."""

    def __init__(self, path: Path, shown: str = "") -> None:
        self.path = path
        self.shown = shown or str(path)
        self.config = path / "config.json"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        return self.config.exists()

    def told(self, path: Path) -> str:
        """A path below it, as a person knows it."""
        return f"{self.shown.rstrip('/')}/{path.relative_to(self.path).as_posix()}"

    def lock(self) -> None:
        """Makes this process the only writer until it ends; see ``hold``."""
        self._lock = hold(self.path, "--run")
        for half in self.path.glob(".*.tmp"):  # of a process that was killed
            half.unlink()

    def discard_if_unused(self) -> None:
        """Removes a folder in which no run has begun."""
        if self._lock is not None and not self.exists and not self.checkpoints.exists():
            for path in (self.path / LOCK, self.log):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds files of somebody else
                self.path.rmdir()

    def write_config(self, config: RunConfig) -> None:
        content = configuration.dump(config).encode()
        if not self.exists or self.config.read_bytes() != content:
            with told_plainly(self.config):
                atomic_write(self.config, content)

    def take_back_metrics(self, step: int, evaluated_step: int) -> None:
        """Removes records beyond a step, evaluations beyond the last that counts, and a line cut short."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        with told_plainly(self.metrics):
            atomic_write(self.metrics, b"".join(line for line in lines if _is_kept(line, step, evaluated_step)))


def hold(path: Path, option: str) -> int:
    """Makes a folder, and this process its only writer until it ends; the kernel releases the lock however it ends.

    Args:
        option: with which another folder is chosen.

    Returns:
        The open lock file.

    Raises:
        CheckpointError: another process has it.
        ConfigError: the folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another with {option}") from None
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.read(lock, 32).decode().strip() or "unknown"
                raise CheckpointError(
                    f"{path}: in use by another process (pid {holder}); wait for it, stop it, or choose another "
                    f"folder with {option}"
                ) from None
            time.sleep(0.1)
    with told_plainly(path):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


@contextlib.contextmanager
def told_plainly(path: Location) -> Iterator[None]:
    """A full or read-only disk in one line; what was there before is whole."""
    try:
        yield
    except OSError as error:
        raise InterruptedRun(f"{path}: not written ({error.strerror}); make room or mend it and resume") from None


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
