"""What a rank and its supervisor say to each other: one JSON object a line over a TCP connection.

A rank sends ``hello`` once, ``beat`` every BEAT_SECONDS with its last mark, and one ``verdict`` when it leaves.
The supervisor answers each beat, so that a rank also notices a supervisor that is gone or stopped.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Any

BEAT_SECONDS = 1.0

ENV_ADDRESS = "CAPSNET_SUPERVISOR"
ENV_TOKEN = "CAPSNET_TOKEN"
ENV_RANKS = "CAPSNET_RANKS"
ENV_GENERATION = "CAPSNET_GENERATION"
ENV_JOB = "CAPSNET_JOB"
"""Which attempt at the run this is, and whose; see trainer/output/ledger.py."""
ENV_TERMINAL = "CAPSNET_TERMINAL"
ENV_HOROVOD = "CAPSNET_HOROVOD"
"""1: a single rank goes through mpirun and Horovod as well, to measure what they cost."""


@dataclass(frozen=True)
class Mark:
    """Where a rank is. ``waits`` says that the phase holds a collective, so other ranks may be the cause of a delay."""

    phase: str
    step: int
    waits: bool = False
    tick: int = 0


STARTING = "starting"
AT_START = Mark(STARTING, 0)


def encode(kind: str, **fields: Any) -> bytes:
    return (json.dumps({"kind": kind, **fields}) + "\n").encode()


def encode_beat(mark: Mark) -> bytes:
    return encode("beat", mark=asdict(mark))


class LineBuffer:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


def connect(address: str, timeout: float = 20.0) -> socket.socket:
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
