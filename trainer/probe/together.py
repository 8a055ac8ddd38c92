"""Small programs that ranks run together under mpirun, with nobody who watches them but the probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import distributed
from trainer.distributed import World
from trainer.errors import ConfigError
from trainer.launch import mpi
from trainer.probe import link
from trainer.stopping import stop_with_parent

LEAVE_SECONDS = 10.0
"""For an mpirun that was asked to end: it takes its ranks along, which a kill would leave behind."""


def run_ranks(module: str, ranks: int, *arguments: str, private: bool = False, seconds: float = 600.0) -> Any:
    """What rank 0 of ``python -m module`` prints last, from JSON. No rank outlives the call, or this process.

    Args:
        private: the ranks meet in a network of their own, over TCP, where ``link`` can slow them down; otherwise as
            ranks of a run on this machine meet.

    Raises:
        ConfigError: ranks cannot be started together; there is no ``tc`` or no right to a network of one's own.
    """
    mpi.check_installed()
    program = mpi.command(ranks, [sys.executable, "-m", module, *arguments], None, os.environ)
    environment = {**mpi.environment(os.environ), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if private:
        link.check()
        program, environment = link.private(program), {**environment, **link.TCP_ONLY}
    process = subprocess.Popen(
        program,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=stop_with_parent,
    )
    try:
        said, wrong = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{ranks} ranks of {module} came to no end within {seconds:g} s") from None
    finally:
        _end(process)
    if process.returncode:
        last = " / ".join((wrong or said).strip().splitlines()[-2:])
        raise ConfigError(f"{ranks} ranks of {module} ended with {process.returncode}: {last}")
    return json.loads(said.strip().splitlines()[-1])


def slowest(world: World, own_X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of all ranks' times, of any shape: what ranks do together has ended when it has on all."""
    all_RX = np.zeros((world.size, *own_X.shape))
    all_RX[world.rank] = own_X
    summed = distributed.sum_values(world, all_RX.ravel().tolist(), "times")
    found: NDArray[np.float64] = summed.reshape(all_RX.shape).max(axis=0)
    return found


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
