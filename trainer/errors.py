"""How a run can end, and how that is told: the one place where exit codes stand."""

from __future__ import annotations

import contextlib
import sys

EXIT_DONE = 0
EXIT_UNEXPECTED = 1
EXIT_WRONG = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 75

EXIT_MEANINGS = {
    EXIT_DONE: "done",
    EXIT_UNEXPECTED: "failed unexpectedly",
    EXIT_WRONG: "wrong configuration or data",
    EXIT_DIVERGED: "training diverged",
    EXIT_INTERRUPTED: "interrupted, can be resumed",
}


class CapsnetError(Exception):
    """An error whose message is one line for a person: what, where and what to do."""

    exit_code = EXIT_UNEXPECTED


class ConfigError(CapsnetError):
    """The configuration or the command is wrong; trying again would not help."""

    exit_code = EXIT_WRONG


class DataError(CapsnetError):
    """The data set is missing, damaged or does not fit; trying again would not help."""

    exit_code = EXIT_WRONG


class StorageError(CapsnetError):
    """Cloud Storage could not be reached, or did not answer rightly in time; trying again later may help."""


class StorageRefused(CapsnetError):
    """Cloud Storage said no: credentials, permission, or nothing of that name; trying again would not help."""

    exit_code = EXIT_WRONG


class ObjectMissing(StorageRefused):
    """There is no object of that name, or no such bucket."""


class ClusterError(CapsnetError):
    """A cluster could not be reached, or refused what it was sent."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class ObjectChanged(DataError):
    """An object is another one than when reading began."""


class CheckpointError(CapsnetError):
    """A checkpoint or run directory cannot be used as asked."""

    exit_code = EXIT_WRONG


class DivergedError(CapsnetError):
    """Training reached a state that is not finite."""

    exit_code = EXIT_DIVERGED


class InterruptedRun(CapsnetError):
    """The run stopped before its end and can be resumed from its last checkpoint."""

    exit_code = EXIT_INTERRUPTED


def tell(message: str) -> None:
    """One line on stderr for a person, below a live line if there is one; silent where nobody reads any more."""
    _say("\n" if sys.stdout.isatty() else "", message)


def note(message: str) -> None:
    """As ``tell``, where it is known that there is no live line."""
    _say("", message)


def _say(before: str, message: str) -> None:
    with contextlib.suppress(OSError):
        print(f"{before}capsnet: {message}", file=sys.stderr, flush=True)
