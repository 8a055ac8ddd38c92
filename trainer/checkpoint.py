"""Checkpoints: one folder holds everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00000500/
        tensors.safetensors   weights, optimizer, loss scale, by variable path
        state.json            step (which is also the position in the data), last evaluation, sums of the meter
        config.json           the configuration of the run
        manifest.json         size and crc32c of each of these

A folder is written under a temporary name, synced and renamed, so that one that can be seen is whole. It is verified
when read. Knows nothing of TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as render_tensors

from trainer.errors import CheckpointError, InterruptedRun
from trainer.storage import crc32c, sync_folder

FORMAT = 1
TENSORS, STATE, CONFIG, MANIFEST = "tensors.safetensors", "state.json", "config.json", "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class State:
    """What a checkpoint knows beside tensors. ``data``: fingerprint of the data set."""

    step: int
    data: str = ""
    evaluated_step: int = -1
    test_accuracy: float | None = None
    best_accuracy: float | None = None
    trained_seconds: float = 0.0
    meter_steps: int = 0
    meter_sums: dict[str, float] = field(default_factory=dict)
    damaged: int = 0
    format: int = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """One that was read and verified."""

    path: Path
    state: State
    config: str
    tensors: dict[str, np.ndarray]


def paths(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match[1])


def save(folder: Path, state: State, config: str, tensors: dict[str, np.ndarray], *, lasting: bool = True) -> Path:
    """Writes one checkpoint and returns its path; one that stands under its name is replaced.

    Args:
        lasting: it is to outlive the machine, and is on the disk on return; else only this process is to read it.

    Raises:
        InterruptedRun: it could not be written (disk full, folder read-only). Nothing half-written is left, the
            checkpoints before it are whole, and the run can go on from them.
    """
    final = folder / f"step-{state.step:08d}"
    temporary = folder / f".writing-{final.name}"
    files = {
        TENSORS: render_tensors(tensors),
        STATE: (json.dumps(asdict(state), indent=2) + "\n").encode(),
        CONFIG: config.encode(),
    }
    manifest = {name: {"bytes": len(content), "crc32c": crc32c(content)} for name, content in files.items()}
    files[MANIFEST] = (json.dumps({"format": FORMAT, "files": manifest}, indent=2) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in files.items():
            _write(temporary / name, content, lasting=lasting)
        if lasting:
            sync_folder(temporary)
        if final.exists():  # damaged, or of a run that was taken back to an earlier step
            shutil.rmtree(final)
        os.rename(temporary, final)
        if lasting:
            sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        before = paths(folder)
        kept = f"the run can go on from step {step_of(before[-1])}" if before else "there is no earlier checkpoint"
        raise InterruptedRun(
            f"{final}: checkpoint not saved ({error.strerror}); make room or mend it and resume: {kept}"
        ) from None
    return final


def _write(path: Path, content: bytes, *, lasting: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if lasting:
            os.fsync(file.fileno())


def read(path: Path) -> Checkpoint:
    """Reads and verifies one checkpoint.

    Raises:
        CheckpointError: a file is missing, cut short or changed, or it was written by another format.
    """
    content = _verified(path)
    try:
        return Checkpoint(
            path, State(**json.loads(content[STATE])), content[CONFIG].decode(), parse_tensors(content[TENSORS])
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _foreign(path, error) from None


def is_whole(path: Path) -> bool:
    """Whether all its files are there as they were written."""
    try:
        _verified(path)
    except CheckpointError:
        return False
    return True


def _verified(path: Path) -> dict[str, bytes]:
    """The files that the manifest names. Raises CheckpointError."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path}: checkpoint format {manifest['format']}, this version reads {FORMAT}")
        content = {name: (path / name).read_bytes() for name in manifest["files"]}
        for name, entry in manifest["files"].items():
            if len(content[name]) != entry["bytes"]:
                raise CheckpointError(f"{path / name}: {len(content[name])} bytes, {entry['bytes']} were written")
            if crc32c(content[name]) != entry["crc32c"]:
                raise CheckpointError(f"{path / name}: wrong checksum, the file has changed since it was written")
        return content
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(path, error) from None


def _foreign(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a checkpoint of this format ({error})")


def read_newest(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; damaged newer ones are reported. None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged.
    """
    candidates = paths(folder)
    for path in reversed(candidates):
        try:
            return read(path)
        except CheckpointError as error:
            report(f"damaged checkpoint: {error}; taking the one before it")
    if candidates:
        raise CheckpointError(f"{folder}: every checkpoint is damaged; start a new run, or restore one from a copy")
    return None


def choose(folder: Path, which: str, report: Callable[[str], None]) -> Checkpoint:
    """``last``, ``best`` (highest test accuracy) or a step number.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    if which == "best":
        for path in by_score(folder):
            try:
                return read(path)
            except CheckpointError as error:
                report(f"damaged checkpoint: {error}; taking the next best")
        return _newest_or_error(folder, report)
    steps = [step_of(path) for path in paths(folder)]
    if which == "last" or not steps:
        return _newest_or_error(folder, report)
    if not which.isdigit() or int(which) not in steps:
        raise CheckpointError(f"{folder}: no checkpoint {which}; there are last, best, {', '.join(map(str, steps))}")
    return read(folder / f"step-{int(which):08d}")


def _newest_or_error(folder: Path, report: Callable[[str], None]) -> Checkpoint:
    found = read_newest(folder, report)
    if found is None:
        raise CheckpointError(f"{folder}: no checkpoint; is this a run directory that has saved one?")
    return found


def by_score(folder: Path) -> list[Path]:
    """Checkpoints with a test accuracy of their own step, best first; the later one where they are equal."""
    scored = [(score, step_of(path), path) for path in paths(folder) if (score := _accuracy(path)) is not None]
    return [path for _, _, path in sorted(scored, reverse=True)]


def _accuracy(path: Path) -> float | None:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_bytes())
    except (OSError, ValueError):
        return None
    return state.get("test_accuracy") if state.get("evaluated_step") == state.get("step") else None


def prune(folder: Path, keep_last: int) -> None:
    """Removes all but the newest and the best."""
    keep = {*paths(folder)[-keep_last:], *by_score(folder)[:1]}
    for path in paths(folder):
        if path not in keep:
            shutil.rmtree(path)


def take_back(folder: Path, step: int) -> None:
    """Before a run goes on from a step: puts aside newer checkpoints, which are damaged and must not count as the
    newest, and removes what a killed process left half-written."""
    for path in paths(folder):
        if step_of(path) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    for half in folder.glob(".writing-*"):
        shutil.rmtree(half)


class Writer:
    """Saves in a thread, so that training waits only while the tensors are copied out of the variables."""

    def __init__(self, folder: Path, keep_last: int, publish: Callable[[Path], None] | None = None) -> None:
        """``publish``: called with each new checkpoint, in the thread, and stores it elsewhere: a save is over when it
        returns, and no disk is waited for before."""
        self._folder = folder
        self._publish = publish
        self._keep_last = keep_last
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.longest_seconds = 0.0
        """Of the saves so far, copying out of memory not included."""

    def submit(self, state: State, config: str, tensors: dict[str, np.ndarray]) -> None:
        """Starts a save; waits for the one before it. Raises what that one raised."""
        self.wait()
        self._thread = threading.Thread(target=self._save, args=(state, config, tensors), name="checkpoint")
        self._thread.start()

    def _save(self, state: State, config: str, tensors: dict[str, np.ndarray]) -> None:
        began = time.monotonic()
        try:
            path = save(self._folder, state, config, tensors, lasting=self._publish is None)
            prune(self._folder, self._keep_last)
            if self._publish is not None:
                self._publish(path)
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        except Exception as error:  # told to the training thread by check()
            self._error = error

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raises what the last save raised, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def settle(self) -> None:
        """Waits for the save under way, whatever becomes of it: something else is being told already."""
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()
