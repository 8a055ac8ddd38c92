"""One process of a comparison after the other, each stopped when the comparison is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from trainer.errors import EXIT_DONE, tell
from trainer.stopping import stop_with_parent

TICK_SECONDS = 0.25
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopper:
    """From the first signal on ``requested`` is true; signals are passed on to the process that runs."""

    def __init__(self) -> None:
        self.requested = False
        self.between: Callable[[], Exception] | None = None
        """What a signal raises while no process runs, once there is nothing left to run."""
        self._process: subprocess.Popen[bytes] | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._process is not None:
            if not self.requested:
                tell("stopping after this step and a checkpoint (Ctrl-C again: at once)")
            self._process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        self.requested = True
        if self._process is None and self.between is not None:
            raise self.between()

    def run(self, arguments: list[str], printed: Path, on_tick: Callable[[], None]) -> int:
        """Runs ``capsnet`` with these words and returns its exit code; what it prints is added to a file.

        In a session of its own, so that Ctrl-C in a terminal reaches only the comparison.
        """
        with printed.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=stop_with_parent,
            )
        try:
            while True:
                try:
                    return self._process.wait(TICK_SECONDS)
                except subprocess.TimeoutExpired:
                    on_tick()
        finally:
            self._process = None


def cause(code: int, printed: Path) -> str:
    """The last line that says why a process ended as it did."""
    if code == EXIT_DONE:
        return ""
    try:
        lines = [line.strip() for line in printed.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    told = [line.removeprefix("capsnet: ") for line in lines if line.startswith("capsnet: ")]
    return (told or lines or [f"exit code {code}"])[-1]
