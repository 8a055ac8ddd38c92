"""One cell in a process of its own, within its limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from trainer.launch import memory_kills
from trainer.probe.records import ERROR, MEMORY, NOT_FINITE, OK, OUTCOMES, TIME
from trainer.stopping import die_with_parent

TICK_SECONDS = 0.05
MIB = 2**20
LAST_LINES = 3
DIGITS = 7
"""Of a number in a record: more than any of them is worth, and half the size."""


@dataclass(frozen=True)
class Watched:
    """How a cell ended; ``peak_mib``: resident, of all its processes."""

    outcome: str
    why: str
    numbers: dict[str, float]
    series: dict[str, list[float]] = field(default_factory=dict)


def watch(
    module: str, spec: dict[str, object], folder: Path, seconds: float, memory_mib: float, stopped: Callable[[], bool]
) -> Watched | None:
    """Runs ``python -m module SPEC RESULT`` in ``folder``; None where a stop was asked for.

    The program leaves a file with outcome, why and numbers. Address space is not limited: TensorFlow reserves much
    more than it uses.
    """
    given, answer, said = folder / "spec.json", folder / "answer.json", folder / "said.txt"
    given.write_text(json.dumps(spec))
    kills, began, peak = memory_kills.count(), time.monotonic(), 0.0
    with said.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(given), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        while child.poll() is None:
            peak = max(peak, _resident(child.pid) / MIB)
            if peak > memory_mib:
                why = f"{peak:,.0f} MiB resident, the limit is {memory_mib:,.0f}"
                return Watched(MEMORY, why, {"peak_mib": peak, "seconds": time.monotonic() - began})
            if time.monotonic() - began > seconds:
                return Watched(TIME, f"no end within {seconds:g} s", {"peak_mib": peak, "seconds": seconds})
            if stopped():
                return None
            time.sleep(TICK_SECONDS)
    finally:
        _kill(child)
    numbers = {"peak_mib": peak, "seconds": time.monotonic() - began}
    if memory_kills.count() > kills:
        return Watched(MEMORY, memory_kills.sentence(memory_kills.limit()), numbers)
    try:
        found = json.loads(answer.read_text())
        outcome = found["outcome"] if found["outcome"] in OUTCOMES else ERROR
        return Watched(outcome, found["why"], {**found["numbers"], **numbers}, found["series"])
    except (OSError, ValueError, KeyError):
        last = " / ".join(said.read_text(errors="replace").strip().splitlines()[-LAST_LINES:])
        return Watched(ERROR, f"ended with {child.returncode}: {last}", numbers)


def leave(
    answer: Path, outcome: str = OK, why: str = "", series: dict[str, list[float]] | None = None, **numbers: float
) -> None:
    """What a cell's program says at its end."""
    finite = all(abs(number) < float("inf") for number in numbers.values())
    told = outcome if finite or outcome != OK else NOT_FINITE
    content = {
        "outcome": told,
        "why": why,
        "numbers": {name: _rounded(number) for name, number in numbers.items()},
        "series": {name: [_rounded(number) for number in values] for name, values in (series or {}).items()},
    }
    answer.write_text(json.dumps(content))


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _resident(pid: int) -> int:
    """Bytes of a process and all below it; what they share is counted once for each."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in psutil.Process(child.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    if child.poll() is None:
        child.kill()
    child.wait()
