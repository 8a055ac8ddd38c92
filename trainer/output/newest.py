"""Which checkpoints of a run in a bucket count: one object, that is swapped for another and never just overwritten.

    gs://BUCKET/runs/NAME/checkpoints.json

Whoever swaps it must have read it, and finds there which attempt wrote last: a process of an earlier attempt, that a
cluster took for dead, cannot put its checkpoint in front of a newer attempt's. What it names has been stored before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer import checkpoint
from trainer.errors import CheckpointError, ObjectChanged
from trainer.rundir import RunDirectory
from trainer.storage import Location, is_cloud, join, read_now, stat, swap

NAME = "checkpoints.json"
FORMAT = 1


@dataclass(frozen=True)
class Stored:
    """A checkpoint in the bucket: ``place`` is its folder, relative to the output."""

    step: int
    place: str


@dataclass(frozen=True)
class Newest:
    """``attempt``: the generation of the attempt that wrote it; ``checkpoints``: oldest first."""

    attempt: int = 0
    checkpoints: tuple[Stored, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What stood there, and the generation of the object (0: none), which swapping takes."""

    newest: Newest
    generation: int


def read(output: str) -> Seen:
    """Raises CheckpointError for what is not of this format; StorageError, StorageRefused."""
    location = str(join(output, NAME))
    if stat(location) is None:
        return Seen(Newest(), 0)
    data, entry = read_now(location)
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise CheckpointError(f"{location}: format {content['format']}, this version reads {FORMAT}")
        stored = tuple(Stored(**each) for each in content["checkpoints"])
        return Seen(Newest(content["attempt"], stored), entry.generation)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{location}: not a list of checkpoints ({error}); restore it from a copy") from None


def replace(output: str, seen: Seen, newest: Newest) -> Seen:
    """Puts ``newest`` in the place of what was seen.

    Raises:
        CheckpointError: an attempt of a later generation has the output.
        ObjectChanged: somebody else changed it, without having claimed it as a later attempt.
        StorageError, StorageRefused.
    """
    location = str(join(output, NAME))
    if seen.newest.attempt > newest.attempt:
        raise _fenced(output, seen.newest.attempt, newest.attempt)
    content = {"format": FORMAT, **asdict(newest)}
    try:
        entry = swap(location, (json.dumps(content, indent=2) + "\n").encode(), seen.generation)
    except ObjectChanged:
        now = read(output)
        if now.newest.attempt > newest.attempt:
            raise _fenced(output, now.newest.attempt, newest.attempt) from None
        raise
    return Seen(newest, entry.generation)


def _fenced(output: str, later: int, ours: int) -> CheckpointError:
    return CheckpointError(f"{output}: attempt {later} at this run writes there now; attempt {ours} stops")


def step(output: Location) -> int:
    """Of the newest checkpoint of a run, in a folder or a bucket; -1 where there is none."""
    if is_cloud(output):
        stored = read(str(output)).newest.checkpoints
        return stored[-1].step if stored else -1
    paths = checkpoint.paths(RunDirectory(Path(output)).checkpoints)
    return checkpoint.step_of(paths[-1]) if paths else -1
