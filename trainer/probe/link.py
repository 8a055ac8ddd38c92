"""Links of imposed speed on one machine: the loopback interface of a private network, slowed down with ``tc``.

The network (``unshare --net``) is the program's alone: nothing outside is touched, and it is gone when the program is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

from trainer.errors import ConfigError

TCP_ONLY = {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_oob_tcp_if_include": "lo"}
"""Open MPI would meet in shared memory, which no link slows down."""
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
PACKET, BURST, QUEUE = 1500, "32kb", "16mb"
"""Bytes: packets as of Ethernet, so that few pass at once before the link is slow; room enough that none is dropped."""
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def bytes_per_second(rate: str) -> float:
    """Of a rate as ``tc`` writes it, as 200mbit. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(kbit|mbit|gbit)", rate)
    if not match or float(match[1]) == 0:
        raise ConfigError(f"--rate {rate}: give a number and kbit, mbit or gbit, as 200mbit")
    return float(match[1]) * UNITS[match[2]] / 8


def check() -> None:
    """Raises ConfigError with what is missing on this machine."""
    for tool in ("unshare", "ip", "tc"):
        if shutil.which(tool, path=PATH) is None:
            raise ConfigError(f"--rate needs {tool} (packages iproute2 and util-linux)")
    tried = subprocess.run(private(slowing("1gbit")), env={**os.environ, "PATH": PATH}, capture_output=True, text=True)
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or [f"ended with {tried.returncode}"])[0]
        raise ConfigError(f"--rate needs a private network and tc's tbf, which cannot be had here: {reason}")


def private(program: list[str]) -> list[str]:
    """The program in a network of its own."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    inside = f"PATH={shlex.quote(PATH)} ip link set lo mtu {PACKET} up && exec {shlex.join(program)}"
    return ["unshare", "--net", *root, "sh", "-c", inside]


def slow_down(rate: str) -> None:
    """From now on, of the private network that this process is in."""
    subprocess.run(slowing(rate), env={**os.environ, "PATH": PATH}, check=True, capture_output=True)


def slowing(rate: str) -> list[str]:
    return f"tc qdisc replace dev lo root tbf rate {rate} burst {BURST} limit {QUEUE}".split()
