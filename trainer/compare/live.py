"""What a person sees of the run under way: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from trainer.compare.outcome import last_step
from trainer.progress import Progress, clock, terminal_columns
from trainer.rundir import RunDirectory

LIVE_SECONDS, PLAIN_SECONDS = 0.5, 30.0


class Live:
    """The line of one run. ``remaining`` gives the seconds that all runs still need, of what this one will have taken
    in all and what of it is left."""

    def __init__(self, place: str, run: Path, steps: int, remaining: Callable[[float, float], float]) -> None:
        self._place, self._metrics, self._steps, self._remaining = place, RunDirectory(run).metrics, steps, remaining
        self._progress = Progress(steps, PLAIN_SECONDS, quiet=False)
        self._first, self._began = last_step(self._metrics), time.monotonic()
        self._interval = LIVE_SECONDS if terminal_columns() else PLAIN_SECONDS
        self._due = 0.0

    def training(self) -> None:
        """Where the run is."""
        if time.monotonic() < self._due:
            return
        step = last_step(self._metrics)
        seconds = (time.monotonic() - self._began) / (step - self._first) if step > self._first else math.nan
        eta = self._remaining(seconds * self._steps, seconds * (self._steps - step))
        self.text(f"{f'step {step}/{self._steps}' if step else 'starting'}  ETA of all {clock(eta)}")

    def text(self, line: str) -> None:
        """Something else, no more often."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval
            self._progress.text(f"{self._place}: {line}")

    def end(self, line: str) -> None:
        """How it went, to stay."""
        self._progress.end_line()
        print(f"{self._place}: {line}", flush=True)
