"""A request to stop that no library can lose."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from types import FrameType

PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """From now on a stop signal raises KeyboardInterrupt wherever the program is, and stays noted.

    Where the exception lands in a callback, a ``__del__`` or a bare except of a library it is lost; the note is not.
    """

    def __init__(self) -> None:
        self.asked = False
        self._raises = True
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        sys.unraisablehook = self._on_unraisable

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self._raises:
            raise KeyboardInterrupt

    def _on_unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within, a signal raises nothing: who looks at ``asked`` hears it."""
        before, self._raises = self._raises, False
        try:
            yield
        finally:
            self._raises = before

    def check_last(self) -> None:
        """As ``check``; from here on signals interrupt nothing, so that what follows is done whole."""
        self._raises = False
        self.check()


def stop_with_parent() -> None:
    """In a child, before its program: when its parent is killed it is asked to stop. On Linux."""
    _at_death_of_parent(signal.SIGTERM)


def die_with_parent() -> None:
    """The same, and it is killed."""
    _at_death_of_parent(signal.SIGKILL)


def _at_death_of_parent(number: signal.Signals) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
