"""What a person sees while a run goes on: one live line on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping

from trainer.launch.wire import ENV_TERMINAL


def terminal_columns() -> int:
    """Width of the terminal, 0 if there is none. Under mpirun stdout looks like a terminal; the supervisor knows."""
    told = os.environ.get(ENV_TERMINAL)
    if told is not None:
        return int(told)
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 0


def clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-:--"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Progress:
    """Knows when a line is due and how it looks."""

    def __init__(self, total_steps: int, plain_seconds: float, quiet: bool) -> None:
        self._total = total_steps
        self._columns = terminal_columns()
        self._interval = 0.2 if self._columns else plain_seconds
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

    def _print(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end, flush=True)
        except OSError:  # nobody reads any more; that is no reason to stop training
            self._quiet = True
