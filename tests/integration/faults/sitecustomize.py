"""Makes a real rank fail where a test wants it to: put this folder on PYTHONPATH and describe the fault in
CAPSNET_TEST_FAULT as JSON: {"rank": 1, "phase": "input", "step": 7, "action": "sleep", "seconds": 60}. With a "file",
that is made when it happens.

CAPSNET_TEST_SLOW_SAVES makes every save take so many seconds more.

A rank says where it is before it goes there (Lifeline.mark); the fault happens at the first mark that fits.
"""

import json
import os
import signal
import time
from pathlib import Path

FAULT = json.loads(os.environ.get("CAPSNET_TEST_FAULT", "null"))
SLOW_SAVES = float(os.environ.get("CAPSNET_TEST_SLOW_SAVES", "0"))


def _fail() -> None:
    if "file" in FAULT:
        Path(FAULT["file"]).touch()
    match FAULT["action"]:
        case "sleep":
            time.sleep(FAULT["seconds"])
        case "signal":
            os.kill(os.getppid(), signal.Signals[FAULT["signal"]])
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)


def _install() -> None:
    from trainer.launch.lifeline import Lifeline

    mark = Lifeline.mark
    left = [1]

    def mark_and_fail(self: Lifeline, phase: str, step: int, *, waits: bool = False) -> None:
        mark(self, phase, step, waits=waits)
        fits = self.rank == FAULT["rank"] and phase == FAULT["phase"] and step >= FAULT.get("step", 0)
        if fits and left:
            left.pop()
            _fail()

    Lifeline.mark = mark_and_fail  # type: ignore[method-assign]


def _slow_saves() -> None:
    """Between rendering a checkpoint's tensors and the rest, as a large model on a slow disk would be."""
    from trainer import checkpoint

    render = checkpoint.render_tensors

    def render_slowly(tensors: dict) -> bytes:
        content = render(tensors)
        time.sleep(SLOW_SAVES)
        return content

    checkpoint.render_tensors = render_slowly


if FAULT:
    _install()
if SLOW_SAVES:
    _slow_saves()
