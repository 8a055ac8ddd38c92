"""Trying again: which failures pass, how long to wait, when to give up."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from trainer.config import StorageConfig
from trainer.errors import StorageError

T = TypeVar("T")
log = logging.getLogger("capsnet")

NOT_IMPLEMENTED = 501


def passes(status: int) -> bool:
    """Whether an answer of that status may be another the next time."""
    return status in (408, 429) or (status >= 500 and status != NOT_IMPLEMENTED)


class PassingError(Exception):
    """A failure that may pass; says what it was, and how long the server asks to be left alone."""

    def __init__(self, what: str, wait_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class Patience:
    """Waits between attempts: exponential, the half of it random, up to a deadline that every progress sets anew."""

    def __init__(self, policy: StorageConfig, what: str) -> None:
        self._policy, self._what = policy, what
        self.progress()

    def progress(self) -> None:
        """Something came: the next failure is a first one."""
        self._failures, self._since = 0, time.monotonic()

    def wait(self, error: PassingError) -> None:
        """Sleeps before the next attempt. Raises StorageError where that would be after the deadline."""
        pause = max(self.pause(self._failures, random.random()), error.wait_seconds)
        self._failures += 1
        spent = time.monotonic() - self._since
        if spent + pause > self._policy.deadline_seconds:
            raise StorageError(
                f"{self._what}: {error}; gave up after {self._failures} attempts in {spent:.0f} s without progress "
                "(storage.deadline_seconds); check the network and try again"
            )
        log.info("%s: %s; trying again in %.1f s", self._what, error, pause)
        time.sleep(pause)

    def pause(self, failures: int, draw: float) -> float:
        """Seconds before the next attempt after that many failures before this one; ``draw`` is uniform in 0..1."""
        longest = min(self._policy.first_wait_seconds * 2.0 ** min(failures, 60), self._policy.longest_wait_seconds)
        return longest * (0.5 + 0.5 * draw)


def persistently(policy: StorageConfig, what: str, attempt: Callable[[], T]) -> T:
    """What ``attempt`` gives once it does not raise PassingError. Raises StorageError after the deadline."""
    patience = Patience(policy, what)
    while True:
        try:
            return attempt()
        except PassingError as error:
            patience.wait(error)
