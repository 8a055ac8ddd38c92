"""What was seen of each shard that others wrote, kept while an index is made: a command that was interrupted goes on.

A note is good for the very job that it is of, and for the file as it was then.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from trainer import storage
from trainer.data.prepare.seen import NOTES, note_place
from trainer.data.scan import Job, Scanned, scan


class _Note(BaseModel):
    of: str
    seen: Scanned


def scanned(target: storage.Location, numbered: tuple[int, Job]) -> Scanned:
    """What is in the shard of that number, noted at ``target``; raises as ``scan`` does, and OSError."""
    number, job = numbered
    note = _Note(of=_key(job), seen=scan(job))
    storage.atomic_write(note_place(target, f"{number:05d}"), note.model_dump_json().encode())
    return note.seen


def noted(target: storage.Location, jobs: list[Job]) -> dict[int, Scanned]:
    """What an interrupted command has seen, by the numbers of the jobs."""
    try:
        there = storage.listing(storage.join(target, NOTES))
    except OSError:
        return {}
    found: dict[int, Scanned] = {}
    for number, job in enumerate(jobs):
        if f"{number:05d}.json" in there:
            with contextlib.suppress(ValidationError):
                note = _Note.model_validate_json(storage.read_bytes(note_place(target, f"{number:05d}")))
                if note.of == _key(job):
                    found[number] = note.seen
    return found


def remove(target: storage.Location, jobs: list[Job]) -> None:
    for number in range(len(jobs)):
        storage.delete(note_place(target, f"{number:05d}"))
    if not storage.is_cloud(target):
        folder = Path(target, NOTES)
        for path in folder.glob(".*.json.*.tmp"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _key(job: Job) -> str:
    path = storage.join(job.folder, job.file)
    changed = 0 if storage.is_cloud(path) else os.stat(path).st_mtime_ns
    return repr((job, changed))
