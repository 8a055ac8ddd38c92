"""Makes a real rank fail where a test wants it to: put this folder on PYTHONPATH and describe the fault in
CAPSNET_TEST_FAULT as JSON: {"rank": 1, "phase": "input", "step": 7, "action": "sleep", "seconds": 60}.

A rank says where it is before it goes there (Lifeline.mark); the fault happens at the first mark that fits.
"""

import json
import os
import signal
import time
from pathlib import Path

FAULT = json.loads(os.environ.get("CAPSNET_TEST_FAULT", "null"))


def _fail() -> None:
    match FAULT["action"]:
        case "touch":
            Path(FAULT["file"]).touch()
            time.sleep(FAULT.get("seconds", 0))
        case "sleep":
            time.sleep(FAULT["seconds"])
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


if FAULT:
    _install()
