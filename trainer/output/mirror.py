"""A run in a bucket: a run directory in a local folder, and what of it is stored while it is trained.

gs://BUCKET/runs/NAME/
    attempts/            ledger.py
    checkpoints.json     newest.py
    checkpoints/         copies.py
    streams/             streams.py
    logs/                ranklog.py
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer import checkpoint, rundir
from trainer.distributed import lost_ranks
from trainer.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    CapsnetError,
    InterruptedRun,
    StorageError,
    StorageRefused,
)
from trainer.launch import wire
from trainer.output import attempts, copies, newest, streams
from trainer.output.ledger import Ledger
from trainer.output.newest import Newest, Seen, Stored
from trainer.storage import cache_folder


class Mirror:
    """Of one attempt; made by ``opened``."""

    def __init__(self, output: str, generation: int, run: Path, say: Callable[[str], None]) -> None:
        self.output, self.run = output, run
        self._generation, self._say = generation, say
        self._seen = Seen(Newest(), 0)
        self._saves = 0
        self._streams = streams.Streams(output, generation, run, say)
        self._following = False

    @property
    def attempt(self) -> tuple[str, int]:
        """The output, and the generation of the attempt."""
        return self.output, self._generation

    def fetch(self) -> None:
        """Claims the run for this attempt, and makes the run directory what the attempt before left.

        Raises:
            CheckpointError: a later attempt has it. StorageError, StorageRefused.
        """
        seen = newest.read(self.output)
        known = seen.newest.checkpoints
        self._seen = newest.replace(self.output, seen, Newest(self._generation, known))
        here = self.run / "checkpoints"
        fetched = copies.fetch_sound(self.output, known[::-1], here)
        for stored in known[: len(known) - len(fetched)]:  # what is pruned is chosen by the scores of all of them
            copies.fetch(self.output, stored, here, whole=False)
        streams.fetch(self.output, self.run)

    def follow(self) -> None:
        """From here on metrics, log and events are stored as they grow; they stand at the checkpoint now.

        Raises:
            StorageError, StorageRefused.
        """
        self._streams.begin()
        streams.forget_before(self.output, self._generation)
        copies.forget_unnamed(self.output, self._seen.newest.checkpoints, self._generation)
        self._streams.follow()
        self._following = True

    def publish(self, path: Path) -> None:
        """Stores a checkpoint, and makes it the newest; removes those that are gone from the run directory.

        Raises:
            InterruptedRun: it could not be stored. CheckpointError: a later attempt has the run.
        """
        self._saves += 1
        stored = Stored(checkpoint.step_of(path), f"{copies.FOLDER}/{self._generation:06d}-{self._saves:06d}")
        before = self._seen.newest.checkpoints
        try:
            copies.store(self.output, stored.place, path)
            self._streams.send()  # records never end before the checkpoint
            steps = {checkpoint.step_of(each) for each in checkpoint.paths(path.parent)}
            kept = [each for each in before if each.step in steps and each.step < stored.step]
            self._seen = newest.replace(self.output, self._seen, Newest(self._generation, (*kept, stored)))
            for each in before:
                if each not in kept:
                    copies.remove(self.output, each.place)
        except (StorageError, StorageRefused, OSError) as error:
            raise InterruptedRun(f"{self.output}: checkpoint of step {stored.step} not stored: {error}") from None

    def close(self) -> None:
        """Stores the rest of what has grown. Raises StorageError, StorageRefused."""
        if self._following:
            self._streams.close()


@contextlib.contextmanager
def opened(output: str, say: Callable[[str], None]) -> Iterator[Mirror]:
    """A run in a bucket, as a local run directory while the context lasts.

    The attempt is that of the launcher, if one has begun it; else one of this person on this machine.

    Raises:
        CheckpointError: another process has the run. StorageError, StorageRefused.
    """
    place = cache_folder() / "runs" / hashlib.sha256(output.encode()).hexdigest()[:16]
    lock = rundir.hold(place, "--run")
    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)  # of a process that was killed
    with contextlib.closing(os.fdopen(lock)), _attempt(output) as generation:
        run.mkdir()
        mirror = Mirror(output, generation, run, say)
        mirror.fetch()
        try:
            yield mirror
        except BaseException:
            try:
                mirror.close()
            except CapsnetError as error:  # something else is being told already
                say(f"{error}; the last metrics and events were not stored")
            raise
        else:
            mirror.close()
        finally:
            shutil.rmtree(run)


@contextlib.contextmanager
def _attempt(output: str) -> Iterator[int]:
    """The generation of the attempt at a run, and its entry in the ledger, where nobody else keeps that."""
    given = os.environ.get(wire.ENV_GENERATION)
    if given:
        yield int(given)
        return
    ledger = Ledger(output)
    begun = ledger.begin(f"{getpass.getuser()}@{socket.gethostname()}")
    code, cause, stopped = EXIT_UNEXPECTED, "", False
    try:
        with attempts.beating(ledger):
            yield begun.generation
        code = EXIT_DONE
    except CapsnetError as error:
        code, cause, stopped = error.exit_code, str(error), isinstance(error, InterruptedRun)
        raise
    except Exception as error:
        lost = lost_ranks(error)
        code, cause = (lost.exit_code if lost else EXIT_UNEXPECTED), str(lost or error)
        raise
    except BaseException:
        code, cause = EXIT_INTERRUPTED, "stopped"
        raise
    finally:
        ledger.end(code, cause, stopped=stopped)
