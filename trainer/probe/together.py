"""Small programs that ranks run together under mpirun, with nobody who watches them but the probe."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import Any

from trainer.errors import ConfigError
from trainer.launch import mpi

TCP_ONLY = {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_oob_tcp_if_include": "lo"}
BURST = "128kb"
"""More than a packet of the loopback interface."""


def run_ranks(module: str, ranks: int, *arguments: str, rate: str = "", seconds: float = 600.0) -> Any:
    """What rank 0 of ``python -m module`` prints last, from JSON.

    Args:
        rate: of a link, as ``tc`` writes it (200mbit): ranks then meet in a network of their own, over TCP on a
            loopback interface of that speed. Empty: as ranks of a run on this machine meet.

    Raises:
        ConfigError: ranks cannot be started together; there is no ``tc`` or no right to a network of one's own.
    """
    mpi.check_installed()
    program = mpi.command(ranks, [sys.executable, "-m", module, *arguments], None, os.environ)
    environment = {**mpi.environment(os.environ), "TF_CPP_MIN_LOG_LEVEL": "3", **(TCP_ONLY if rate else {})}
    if rate:
        program = behind(rate, program)
    try:
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{ranks} ranks of {module} came to no end within {seconds:g} s") from None
    if done.returncode:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise ConfigError(f"{ranks} ranks of {module} ended with {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def behind(rate: str, program: list[str]) -> list[str]:
    """The program in a network of its own, whose loopback interface has that speed."""
    for tool in ("unshare", "ip", "tc"):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            raise ConfigError(f"--rate needs {tool} (packages iproute2 and util-linux)")
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    inside = (
        "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && "
        f"tc qdisc add dev lo root tbf rate {shlex.quote(rate)} burst {BURST} latency 400ms && "
        f"exec {shlex.join(program)}"
    )
    return ["unshare", "--net", *root, "sh", "-c", inside]
