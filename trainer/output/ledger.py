"""The ledger of attempts at a run, at its output: who made them, from which checkpoint, and how they ended.

    attempts/000003.begin.json    made once: whoever makes it has the attempt
    attempts/000003.alive.json    written again and again while it lasts
    attempts/000003.end.json

A file or object each, because objects in a bucket cannot be appended to. An attempt without an end whose sign of life
is old was killed without a warning.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass

from trainer.config import StorageConfig
from trainer.errors import (
    EXIT_DIVERGED,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    EXIT_WRONG,
    CheckpointError,
    ObjectChanged,
)
from trainer.output import newest
from trainer.storage import POLICY, Location, atomic_write, create, join, listing, make_folder, read_bytes

FOLDER = "attempts"
LEASE_SECONDS = 60.0
"""After its last sign of life an attempt is dead. Clocks of machines that share an output agree to less than that."""
LIMIT = 3
"""The same failure so many times at the same checkpoint ends a run; failures of any kind, three times as many."""
FINAL = (EXIT_DONE, EXIT_WRONG, EXIT_DIVERGED)
KILLED = "killed without a word: out of memory, or its machine was lost?"


@dataclass(frozen=True)
class End:
    """``stopped``: it was asked to stop, or its machines were taken away; ``step``: of the newest checkpoint."""

    code: int
    cause: str
    stopped: bool
    step: int
    time: float


@dataclass(frozen=True)
class Attempt:
    """``generation`` counts from 1; ``step``: of the checkpoint that it began from, -1 for none; times in s since
    the epoch."""

    generation: int
    job: str
    step: int
    began: float
    alive: float
    end: End | None = None

    def lives(self, now: float) -> bool:
        return self.end is None and now - self.alive < LEASE_SECONDS


@dataclass(frozen=True)
class Move:
    """What to do after the attempts so far; ``why`` is for a person. A code of 75 would ask for another attempt."""

    retry: bool
    code: int
    why: str = ""


def next_move(attempts: Sequence[Attempt], limit: int = LIMIT) -> Move:
    """The restart policy, after the end of the last attempt.

    Done, wrong and diverged are final. Anything else is tried again, unless it fails the same way ``limit`` times from
    the same checkpoint. Stops and preemptions do not count.
    """
    last = attempts[-1]
    end = _end(last)
    if end.code in FINAL:
        return Move(False, end.code)
    if end.stopped or end.step > last.step:
        return Move(True, end.code)
    failures = [a for a in attempts if not _end(a).stopped and a.step == last.step]
    same = [a for a in failures if _kind(_end(a)) == _kind(end)]
    where = f"from the checkpoint of step {last.step}" if last.step >= 0 else "before the first checkpoint"
    if len(same) >= limit:
        return Move(False, EXIT_UNEXPECTED, f"gave up: {limit} attempts ended the same way {where}: {end.cause}")
    if len(failures) >= 3 * limit:
        return Move(False, EXIT_UNEXPECTED, f"gave up: {len(failures)} attempts failed {where}, at last: {end.cause}")
    return Move(True, end.code)


def stops_in_vain(attempts: Sequence[Attempt], step: int) -> list[Attempt]:
    """The attempts that were stopped before they had saved anything, since the newest checkpoint.

    They never end a run, as the next may come through; but where nothing else happens, somebody should know.

    Args:
        step: of the newest checkpoint, -1 for none.
    """
    return [a for a in attempts if a.step == step and a.end is not None and a.end.stopped and a.end.step <= step]


def _end(attempt: Attempt) -> End:
    return attempt.end or _killed(attempt.step, attempt.alive)


def _killed(step: int, time: float) -> End:
    return End(EXIT_INTERRUPTED, KILLED, False, step, time)


def _kind(end: End) -> tuple[int, str]:
    """What is the same in two failures that differ in where and when."""
    return end.code, re.sub(r"\d+", "#", re.sub(r"\([^)]*\)", "", end.cause))


class Ledger:
    """Of one output. Every method raises StorageError or StorageRefused where the bucket does not serve, and OSError
    where the folder does not."""

    def __init__(self, output: Location, policy: StorageConfig = POLICY) -> None:
        self._output, self._policy = output, policy
        self.folder = join(output, FOLDER)
        self._ours = 0
        self._ended: dict[int, Attempt] = {}

    def attempts(self) -> list[Attempt]:
        """All of them, the first first."""
        make_folder(self.folder)
        names = listing(self.folder, self._policy)
        return [self._attempt(generation, names) for generation in _generations(names)]

    def before(self) -> End | None:
        """How the last attempt that is over ended; None before there is one. One listing, and one object, are read."""
        names = listing(self.folder, self._policy)
        over = _generations(names)
        if over and _name(over[-1], "end") not in names:  # that one is under way
            over.pop()
        if not over:
            return None
        if _name(over[-1], "end") not in names:
            return _killed(-1, 0.0)
        try:
            return End(**self._content(over[-1], "end"))  # type: ignore[arg-type]
        except TypeError as error:
            raise CheckpointError(f"{self.folder}: attempt {over[-1]} is of another version ({error})") from None

    def begin(self, job: str) -> Attempt:
        """A new attempt for ``job``.

        Raises:
            CheckpointError: an attempt of another job lives.
        """
        while True:
            before = self.attempts()
            now = time.time()
            for other in before:
                if other.job != job and other.lives(now):
                    raise CheckpointError(
                        f"{self._output}: {other.job} trains there (attempt {other.generation}, sign of life "
                        f"{max(0.0, now - other.alive):.0f} s ago); give this run another output or stop that one"
                    )
            generation = before[-1].generation + 1 if before else 1
            attempt = Attempt(generation, job, newest.step(self._output), now, now)
            begun = {"job": job, "step": attempt.step, "began": now}
            try:
                create(self._place(generation, "begin"), _rendered(begun))
            except (FileExistsError, ObjectChanged):
                continue  # another was faster
            self._ours = generation
            return attempt

    def beat(self) -> None:
        """The attempt that was begun here lives."""
        atomic_write(self._place(self._ours, "alive"), _rendered({"alive": time.time()}))

    def end(self, code: int, cause: str, *, stopped: bool) -> None:
        """The attempt that was begun here is over."""
        end = End(code, cause, stopped, newest.step(self._output), time.time())
        atomic_write(self._place(self._ours, "end"), _rendered(asdict(end)))

    def _attempt(self, generation: int, names: Container[str]) -> Attempt:
        if generation in self._ended:
            return self._ended[generation]

        try:
            begun = self._content(generation, "begin")
            beats = _name(generation, "alive") in names
            alive = self._content(generation, "alive")["alive"] if beats else begun["began"]
            ended = _name(generation, "end") in names
            end = End(**self._content(generation, "end")) if ended else None  # type: ignore[arg-type]
            found = Attempt(generation, **begun, alive=alive, end=end)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.folder}: attempt {generation} is of another version ({error})") from None
        if end is not None:
            self._ended[generation] = found
        return found

    def _content(self, generation: int, kind: str) -> dict[str, object]:
        place = self._place(generation, kind)
        try:
            found: dict[str, object] = json.loads(read_bytes(place, self._policy))
        except ValueError:
            raise CheckpointError(f"{place}: not a record of an attempt; remove it, or restore it") from None
        return found

    def _place(self, generation: int, kind: str) -> Location:
        return join(self.folder, _name(generation, kind))


def _generations(names: Iterable[str]) -> list[int]:
    return sorted(int(name.partition(".")[0]) for name in names if name.endswith(".begin.json"))


def _name(generation: int, kind: str) -> str:
    return f"{generation:06d}.{kind}.json"


def _rendered(content: dict[str, object]) -> bytes:
    return (json.dumps(content) + "\n").encode()
