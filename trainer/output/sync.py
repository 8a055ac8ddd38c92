"""Runs in a bucket as local files for TensorBoard, which follows a file that grows or is cut short in place.

What an attempt has stored is only ever appended to. Where a newer attempt has begun, which took files back to its
checkpoint, a file is cut where the two differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ObjectChanged, ObjectMissing
from trainer.output import evaluated, newest, streams
from trainer.output.streams import PART_BYTES
from trainer.rundir import EVALUATION
from trainer.storage import Entry, atomic_write, listing, read_range

STATE = ".sync.json"
"""In each run's folder: the attempt that its files are of."""
EVENTS = "events.out.tfevents."
LOOKS = 3
"""At runs that change while they are brought. What still does then comes with the next call."""


@dataclass(frozen=True)
class Change:
    """What was done to a local file: bytes cut off and appended."""

    path: Path
    cut: int
    appended: int


def runs(prefix: str) -> list[str]:
    """The runs at or below a place in a bucket, by their names relative to it. Raises StorageError, StorageRefused."""
    return _runs(listing(prefix))


def _runs(found: Iterable[str]) -> list[str]:
    indices = [name for name in found if name == newest.NAME or name.endswith(f"/{newest.NAME}")]
    return sorted(name.removesuffix(newest.NAME).rstrip("/") for name in indices)


def _below(folder: str, found: Mapping[str, Entry], runs: Iterable[str]) -> dict[str, dict[str, Entry]]:
    """What a folder of each run holds, as a listing of it would give it: one listing does for all runs."""
    of_run: dict[str, dict[str, Entry]] = {run: {} for run in runs}
    for name, entry in found.items():
        run, between, rest = f"/{name}".rpartition(f"/{folder}/")
        if between and run.removeprefix("/") in of_run:
            of_run[run.removeprefix("/")][rest] = entry
    return of_run


def sync(prefix: str, folder: Path) -> list[Change]:
    """Brings the local files of all runs to what the bucket has.

    Raises:
        StorageError, StorageRefused: what was brought until then is whole. OSError: a file cannot be written.
    """
    changes: list[Change] = []
    for _ in range(LOOKS):
        found = listing(prefix)
        names = _runs(found)
        parts, scores, profiles = (
            _below(part, found, names) for part in (streams.FOLDER, EVALUATION, streams.PROFILES)
        )
        whole = True
        for name in names:
            place = f"{prefix.rstrip('/')}/{name}".rstrip("/")
            try:
                for change in _bring_run(place, folder / name, parts[name], scores[name], profiles[name]):
                    changes.append(change)  # one by one: what came before an exception was brought
            except (ObjectChanged, ObjectMissing):
                whole = False  # a part grew since it was listed, or a newer attempt removed it
        if whole:
            break
    return changes


def _bring_run(
    place: str, here: Path, parts: Mapping[str, Entry], scores: Mapping[str, Entry], profiles: Mapping[str, Entry]
) -> Iterator[Change]:
    """Raises ObjectChanged, ObjectMissing where the bucket is no longer what was listed."""
    stored = streams.newest_of(place, parts)
    if stored is None:
        return
    here.mkdir(parents=True, exist_ok=True)
    same = _generation(here) == stored.generation
    for file, of_file in stored.parts.items():
        yield from _bring(here / file, of_file, same)
    yield from (Change(*each) for each in evaluated.bring(place, scores, here))
    yield from (Change(*each) for each in evaluated.bring_whole(place, streams.PROFILES, profiles, here))
    if not same:
        for path in here.glob(f"{EVENTS}*"):
            if path.name not in stored.parts:  # taken back to before its first event
                os.truncate(path, 0)
        atomic_write(here / STATE, (json.dumps({"generation": stored.generation}) + "\n").encode())


def _generation(here: Path) -> int:
    try:
        return int(json.loads((here / STATE).read_text())["generation"])
    except (OSError, ValueError, KeyError):
        return 0  # compared with what is there, then


def _bring(path: Path, parts: tuple[tuple[str, Entry], ...], same: bool) -> list[Change]:
    """``same``: what is there was brought from these parts, and need not be compared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        size = had = os.fstat(file.fileno()).st_size
        if not same and had:
            size = _common(file.read(), parts)
        stored = sum(entry.bytes for _, entry in parts)
        if same and size >= stored:
            return []
        data = b"".join(
            read_range(location, max(0, size - number * PART_BYTES), entry.bytes, entry=entry)
            for number, (location, entry) in enumerate(parts)
            if number * PART_BYTES + entry.bytes > size
        )
        if size < had:
            file.truncate(size)
        file.seek(size)
        file.write(data)
    return [Change(path, had - size, len(data))] if data or size < had else []


def _common(ours: bytes, parts: tuple[tuple[str, Entry], ...]) -> int:
    """Bytes at the beginning that are the same."""
    at = 0
    for location, entry in parts:
        theirs = read_range(location, 0, entry.bytes, entry=entry)
        mine = ours[at : at + len(theirs)]
        if mine != theirs:
            return at + next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), len(mine))
        at += len(theirs)
    return at
