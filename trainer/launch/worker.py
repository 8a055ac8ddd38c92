"""The first process of a worker pod: sshd, through which the launcher's mpirun starts ranks, and a clean end.

The ranks would never hear of the pod's SIGTERM: they are children of sshd's sessions. This program passes it on to them
as a stop request, keeps the sessions alive until they have saved and left, and lets no new session begin meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType

import psutil

from trainer.errors import EXIT_INTERRUPTED, ConfigError, note

SSHD = "/usr/sbin/sshd"
SSHD_CONFIG = Path("/etc/capsnet/sshd_config")
PAUSE_SECONDS = 0.1


def serve(config: Path = SSHD_CONFIG, sshd: str = SSHD) -> int:
    """Runs sshd until SIGTERM, then ends the pod's ranks in peace; returns the exit code.

    That of a stop is not 0: a worker that seems to have completed would not be made again.

    Raises:
        ConfigError: there is no sshd, or it does not start.
    """
    stops: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stops.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)])
    except OSError as error:
        raise ConfigError(
            f"{sshd}: cannot be started ({error.strerror}); worker pods run the package's image"
        ) from None
    note("worker: sshd is up")
    while server.poll() is None and not stops:
        time.sleep(PAUSE_SECONDS)
    if not stops:
        raise ConfigError(f"{sshd} ended with {server.returncode}; its reason stands above")
    server.terminate()  # the listener; sessions are processes of their own
    ranks = _ranks()
    note(f"worker: stopping, {len(ranks)} ranks are to save and leave")
    for rank in ranks:
        _signal(rank, signal.SIGUSR1)
    while any(_is(process, "orted") for process in psutil.process_iter()):
        time.sleep(PAUSE_SECONDS)
    note("worker: all ranks have left")
    return EXIT_INTERRUPTED


def _ranks() -> list[psutil.Process]:
    """Processes that mpirun started here: the rank itself is the child of orted."""
    return [process for orted in psutil.process_iter() if _is(orted, "orted") for process in _children(orted)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def _is(process: psutil.Process, name: str) -> bool:
    try:
        return process.pid != os.getpid() and process.name() == name and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
