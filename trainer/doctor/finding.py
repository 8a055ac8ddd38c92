"""What a check found."""

from __future__ import annotations

import os
import signal
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
    """Of a process; ``said`` is the last line of its output, or of its errors, ``lines`` how many there were."""

    code: int
    said: str
    lines: int = 1


def asked(program: list[str], seconds: float) -> Answer:
    """Runs this Python with ``program`` as its arguments; see ``answered``."""
    return answered([sys.executable, *program], seconds)


def answered(command: list[str], seconds: float) -> Answer:
    """Runs a command; a code of -1 where it did not end in time, and then all that it started is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Answer(-1, f"no end within {seconds:g} s")
    lines = (output if process.returncode == 0 else errors or output).strip().splitlines()
    if process.returncode < 0:  # its last line is of what it did before
        return Answer(process.returncode, f"ended by {signal.Signals(-process.returncode).name}", len(lines))
    return Answer(process.returncode, lines[-1] if lines else f"ended with {process.returncode}", len(lines))
