"""What a person sees while a run goes on: one live line on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from trainer.launch.wire import ENV_TERMINAL

PLAIN_SECONDS, LIVE_SECONDS = 10.0, 0.2
PATIENT_SECONDS = 1.0


def terminal_columns(stream: TextIO | None = None) -> int:
    """Width of the terminal, 0 if there is none. Under mpirun stdout looks like a terminal; the supervisor knows.

    Args:
        stream: what is to be a terminal; stdout if None.
    """
    told = os.environ.get(ENV_TERMINAL)
    if told is not None:
        return int(told)
    return shutil.get_terminal_size((80, 24)).columns if (stream or sys.stdout).isatty() else 0


def clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-:--"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Progress:
    """Knows when a line is due and how it looks. Goes to stdout, or another stream."""

    def __init__(self, total_steps: int, plain_seconds: float, quiet: bool, stream: TextIO | None = None) -> None:
        self._total = total_steps
        self._stream = stream
        self._columns = terminal_columns(stream)
        self._interval = LIVE_SECONDS if self._columns else plain_seconds
        self._quiet = quiet
        self._due = 0.0
        self._line_open = False

    @property
    def due(self) -> bool:
        return not self._quiet and time.monotonic() >= self._due

    def show(self, step: int, epoch: float, values: Mapping[str, float], images_per_second: float, eta: float) -> None:
        self._due = time.monotonic() + self._interval
        self.text(
            f"step {step}/{self._total}  epoch {epoch:.2f}  "
            + "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            + (f"  {images_per_second:,.0f} images/s" if math.isfinite(images_per_second) else "")
            + f"  ETA {clock(eta)}"
        )

    def now_and_then(self, line: str) -> None:
        """Another line than that of training, where one is due."""
        if self.due:
            self._due = time.monotonic() + self._interval
            self.text(line)

    def text(self, line: str) -> None:
        if self._quiet:
            return
        if self._columns:
            line = line[: self._columns - 1]
            self._print(f"\r{line:<{self._columns - 1}}", end="")
            self._line_open = True
        else:
            self._print(line)

    def end_line(self) -> None:
        """Before anything else is printed."""
        if self._line_open:
            self._print("")
            self._line_open = False

    def clear(self) -> None:
        """Takes the live line away, for others to stand in its place."""
        if self._line_open:
            self._print(f"\r{'':{self._columns - 1}}\r", end="")
            self._line_open = False

    def _print(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end, file=self._stream, flush=True)
        except OSError:  # nobody reads any more; that is no reason to stop training
            self._quiet = True


class Tally:
    """Progress of what is counted, with the time that is left, from what was done since the first call."""

    def __init__(self, unit: str, *, patient: bool = False, stream: TextIO | None = None) -> None:
        """``patient``: says nothing of what is done in a moment."""
        self._unit, self._patient, self._stream = unit, patient, stream
        self._progress = Progress(0, PLAIN_SECONDS, quiet=False, stream=stream)
        self._start = self._due = 0.0
        self._first = 0
        self.clear, self.end = self._progress.clear, self._progress.end_line

    def __call__(self, done: int, total: int) -> None:
        """``total`` 0: not known."""
        now = time.monotonic()
        if not self._start:
            self._start, self._first = now, done
            if self._patient:
                self._due = now + PATIENT_SECONDS
        if now < self._due and (self._patient or done < total):
            return
        self._due = now + (LIVE_SECONDS if terminal_columns(self._stream) else PLAIN_SECONDS)
        rate = (done - self._first) / (now - self._start) if now > self._start else 0.0
        eta = (total - done) / rate if rate else math.inf
        if total:
            of_all = f"{done:,} of {total:,} {self._unit} ({done / total:.0%})"
            self._progress.text(f"{of_all}  {rate:,.0f} {self._unit}/s  ETA {clock(eta)}")
        else:
            self._progress.text(f"{done:,} {self._unit}")
