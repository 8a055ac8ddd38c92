"""The machines of a run over several pods: the hostfile, and waiting until each can be reached.

The hostfile is Open MPI's, as the MPI Operator writes it: ``NAME slots=N`` a line.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ConfigError, InterruptedRun

PORT = 2222
"""Of sshd in a worker pod; docker/sshd_config and docker/ssh_config say the same."""

PAUSE_SECONDS = 1.0
SAY_SECONDS = 30.0
_LINE = re.compile(r"(\S+)(?:\s+slots=(\d+))?")


@dataclass(frozen=True)
class Host:
    """``slots``: ranks that run there."""

    name: str
    slots: int

    @property
    def pod(self) -> str:
        return self.name.split(".")[0]


def read_hostfile(path: Path) -> list[Host]:
    """Raises ConfigError where it cannot be read or names no machine."""
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise ConfigError(f"{path}: the hostfile cannot be read ({error.strerror})") from None
    hosts = []
    for line in filter(None, lines):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{path}: '{line}' is not 'NAME slots=N'")
        hosts.append(Host(match[1], int(match[2] or 1)))
    if not hosts:
        raise ConfigError(f"{path}: the hostfile names no machine")
    return hosts


def wait_for(
    hosts: Sequence[Host],
    seconds: float,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    mend: Callable[[Host], str] = lambda _host: "",
    port: int = PORT,
) -> None:
    """Returns when sshd answers on each machine.

    Args:
        seconds: deadline for all of them together.
        stopped: whether a stop was requested.
        say: takes a line now and then, with who is missing.
        mend: called for a machine that does not answer; may make way for a new one, and says what is known of it.

    Raises:
        InterruptedRun: the deadline has passed, and who is missing; or a stop was requested.
    """
    began = time.monotonic()
    say_at = began + SAY_SECONDS / 10
    missing = list(hosts)
    while True:
        missing = [host for host in missing if not _answers(host, port)]
        if not missing:
            return
        now = time.monotonic()
        if now - began > seconds or now > say_at:
            told = "; ".join(f"{host.pod}{f' ({known})' if (known := mend(host)) else ''}" for host in missing)
            if now - began > seconds:
                raise InterruptedRun(f"no answer within {seconds:g} s from {told}")
            say(f"waiting for {told}")
            say_at = now + SAY_SECONDS
        if stopped():
            raise InterruptedRun("stopped; there was nothing new to save")
        time.sleep(PAUSE_SECONDS)


def _answers(host: Host, port: int) -> bool:
    """Whether sshd says its name there: a port that a proxy or a dying pod holds open is not enough."""
    try:
        with socket.create_connection((host.name, port), timeout=5.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
