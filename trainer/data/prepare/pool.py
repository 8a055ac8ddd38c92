"""Work for all cores, in processes that end with this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from trainer import storage
from trainer.config import StorageConfig
from trainer.errors import DataError

J = TypeVar("J")
R = TypeVar("R")


def results(call: Callable[[J], R], jobs: Sequence[J], workers: int, what: str) -> Generator[tuple[J, R], None, None]:
    """Each job with what ``call`` made of it, as they end; closed before, at once.

    Args:
        what: is made, for messages.

    Raises:
        DataError: a worker was killed. Whatever ``call`` raises.
    """
    if not jobs:
        return
    waiting = iter(jobs)
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=begin, initargs=(storage.standing(),))
    others = set(multiprocessing.active_children())
    running: dict[Future[R], J] = {}

    def submit(count: int) -> None:
        for job in islice(waiting, count):
            with _interrupts_wait():
                running[executor.submit(call, job)] = job

    try:
        submit(workers + 1)
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield running.pop(future), future.result()
                submit(1)
    except BrokenProcessPool:
        raise DataError(
            f"{what}: a worker was killed, perhaps for memory; run the same command again, it goes on from there, with "
            "less --workers"
        ) from None
    except (KeyboardInterrupt, GeneratorExit):  # at once: what is half-written has another name
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def begin(policy: StorageConfig) -> None:
    """In a new worker: Ctrl-C is the parent's to handle, and the end of the parent is the worker's end."""
    storage.stand_by(policy)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes afterwards: a pool whose thread or process is half-started cannot be shut down.

    The mask is for the processes, which inherit it: none is stopped before it has come to ``begin``. It does not hold
    here, where a thread of a library may take the signal, so that the handler waits too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: taken.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if taken:
            signal.raise_signal(signal.SIGINT)
