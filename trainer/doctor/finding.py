"""What a check found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"
SKIPPED: Final = "skipped"
Level = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class Finding:
    """``said``: what was seen; ``mend``: what to do about it, '' where there is nothing to do."""

    name: str
    level: Level
    said: str
    mend: str = ""


Findings = Iterator[Finding]


@dataclass(frozen=True)
class Answer:
    """Of a Python program in a process of its own; ``said`` is the last line of its output, or of its errors."""

    code: int
    said: str


def asked(program: list[str], seconds: float) -> Answer:
    """Runs this Python with ``program`` as its arguments; a code of -1 where it did not end in time."""
    try:
        done = subprocess.run([sys.executable, *program], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Answer(-1, f"no end within {seconds:g} s")
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return Answer(done.returncode, lines[-1] if lines else f"ended with {done.returncode}")
