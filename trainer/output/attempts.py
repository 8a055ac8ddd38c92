"""The restart policy of a run: attempts, one after the other, until it is done or trying again is of no use.

It stands here and not in Kubernetes, whose limits count preemptions as failures and know no exit codes. The ledger of
attempts lies at the run's output, where it survives every pod.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from trainer.errors import EXIT_INTERRUPTED, CapsnetError, note
from trainer.launch import wire
from trainer.launch.supervisor import STOP_SIGNALS
from trainer.launch.verdicts import Ending
from trainer.output.ledger import Ledger, next_move
from trainer.rundir import told_plainly

BEAT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Before the second attempt, the third, ...; the last goes on. An attempt that reached a new step starts anew."""


def run(ledger: Ledger, job: str, attempt: Callable[[list[int]], Ending]) -> Ending:
    """Makes attempts until one is done, stopped or final.

    Args:
        job: who makes them; another job on the same output is refused while this one lives.
        attempt: runs the ranks once. It gets the list that requests to stop are put in, and may raise CapsnetError.

    Raises:
        CheckpointError: another job has the output. InterruptedRun: the ledger cannot be written.
    """
    requests: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: requests.append(number))
    in_vain, furthest = 0, -1
    while True:
        with told_plainly(ledger.folder):
            begun = ledger.begin(job)
        os.environ[wire.ENV_GENERATION], os.environ[wire.ENV_JOB] = str(begun.generation), job
        if begun.generation > 1:
            note(f"attempt {begun.generation}")
        with beating(ledger):
            try:
                ending = attempt(requests)
            except CapsnetError as error:
                ending = Ending(error.exit_code, str(error), bool(requests))
                note(ending.cause)
        with told_plainly(ledger.folder):
            ledger.end(ending.code, ending.cause, stopped=ending.stopped)
        move = next_move(ledger.attempts())
        if not move.retry:
            if move.why:
                note(move.why)
            return Ending(move.code, move.why or ending.cause, ending.stopped, ending.step)
        if requests:
            return Ending(EXIT_INTERRUPTED, ending.cause, True, ending.step)
        in_vain, furthest = (0, ending.step) if ending.step > furthest else (in_vain + 1, furthest)
        pause = PAUSES_SECONDS[min(in_vain, len(PAUSES_SECONDS) - 1)]
        note(f"trying again in {pause:g} s, from the last checkpoint")
        _pause(pause, requests)
        if requests:
            return Ending(EXIT_INTERRUPTED, "stopped between two attempts", True, ending.step)


def _pause(seconds: float, requests: list[int]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not requests:
        time.sleep(0.1)


@contextlib.contextmanager
def beating(ledger: Ledger) -> Iterator[None]:
    """Tells the ledger that the attempt lives, from a thread: a bucket may be slow."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                ledger.beat()
            except (CapsnetError, OSError) as error:
                note(f"the ledger of attempts: {error}")

    thread = threading.Thread(target=beat, name="ledger", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
