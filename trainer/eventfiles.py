"""The event files of a run: appending, reading, and taking back. Knows nothing of TensorFlow, nor of what is shown.

An event file is a sequence of records framed as in TFRecord, each a serialised Event; the first says the version.
TensorBoard follows a file that grows or is cut short in place, and never again reads one that was replaced by a
rename; of several files in a folder it reads on in the order of their names.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from trainer.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame, masked_crc
from trainer.errors import CheckpointError, InterruptedRun

FILE_VERSION = "brain.Event:2"
NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..*")


class EventFile:
    """A new event file in a folder, made at the first write; what is written is with the operating system at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder
        self._descriptor: int | None = None
        self._size = 0
        self._described: set[str] = set()

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Appends one event that holds all ``values`` (Summary.Value), or nothing at all where there are none.

        Raises:
            InterruptedRun: the disk is full or failed; of this event nothing is left in the file.
        """
        now = time.time()
        event = Event(wall_time=now, step=step, summary=Summary(value=values))
        if not event.summary.value:
            return
        for value in event.summary.value:  # readers keep what the first value of a tag says about it
            if value.tag in self._described:
                value.ClearField("metadata")
            self._described.add(value.tag)
        events = [event]
        if self._size == 0:
            # 'start' makes a TensorBoard that is running forget what it saw beyond the step that is resumed
            start = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
            events = [Event(wall_time=now, file_version=FILE_VERSION), start, event]
        self._append(b"".join(frame(each.SerializeToString()) for each in events))

    def flush(self) -> None:
        """Makes everything survive a power cut. Raises InterruptedRun."""
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise self._not_written(error) from None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, data: bytes) -> None:
        try:
            if self._descriptor is None:
                self._path = _new_path(self._folder)
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
            raise self._not_written(error) from None
        self._size += len(data)

    def _not_written(self, error: OSError) -> InterruptedRun:
        return InterruptedRun(f"{self._path}: not written ({error.strerror}); make room and resume")


def paths(folder: Path) -> list[Path]:
    """The event files directly in ``folder``, in the order in which TensorBoard reads them."""
    return sorted(path for path in folder.glob("events.out.tfevents.*") if path.is_file())


def events(path: Path) -> Iterator[Any]:
    """Every whole event of a file, up to the first record that is damaged or cut short. Raises OSError."""
    with path.open("rb") as file:
        for _, event in _records(file):
            yield event


def take_back(folder: Path, is_beyond: Callable[[Any], bool]) -> None:
    """Removes from the event files every event for which ``is_beyond`` holds, and what a kill left half-written.

    Files are cut short in place; those without anything to show are removed.

    Raises:
        CheckpointError: a file cannot be read or written.
    """
    for path in paths(folder):
        try:
            _take_back(path, is_beyond)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be taken back to the checkpoint ({error.strerror}); make it writable or remove it"
            ) from None


def _take_back(path: Path, is_beyond: Callable[[Any], bool]) -> None:
    end = 0  # of what stays where it is
    behind: list[bytes] = []  # kept although something before it goes; events are in step order, so hardly ever
    cut = shows = False
    with path.open("r+b") as file:
        for record, event in _records(file):
            if is_beyond(event):
                cut = True
                continue
            shows |= event.WhichOneof("what") not in (None, "file_version", "session_log", "source_metadata")
            if cut:
                behind.append(record)
            else:
                end += len(record)
        if shows and end < path.stat().st_size:
            file.seek(end)
            file.write(b"".join(behind))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    if not shows:
        path.unlink()


def _records(file: IO[bytes]) -> Iterator[tuple[bytes, Any]]:
    """(framed bytes, Event) of each record up to the first that is not whole; TensorBoard reads no further either."""
    while len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
        length, length_crc = struct.unpack("<QI", header)
        if masked_crc(header[:8]) != length_crc:
            return
        body = file.read(length + FOOTER_BYTES)
        if len(body) < length + FOOTER_BYTES:
            return
        data = body[:length]
        if masked_crc(data) != int.from_bytes(body[length:], "little"):
            return
        try:
            event = Event.FromString(data)
        except DecodeError:
            return
        yield header + body, event


def _new_path(folder: Path) -> Path:
    """A name behind all that are there, also where the clock went back or another machine's is slow."""
    numbers = [int(match[1]) for path in paths(folder) if (match := NAME.fullmatch(path.name))]
    number = max([int(time.time()), *(number + 1 for number in numbers)])
    return folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}.{os.getpid()}"
