"""What is known of the ranks of a run, who of them keeps the others waiting, and how all of them together ended."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from trainer.errors import EXIT_DONE, EXIT_INTERRUPTED
from trainer.launch import wire
from trainer.launch.wire import Mark


@dataclass
class Rank:
    """What is known of one rank; times are monotonic seconds."""

    number: int
    host: str
    pid: int
    link: socket.socket | None
    heard_at: float
    marked_at: float
    mark: Mark = wire.AT_START
    memory_kills: int = 0
    memory_limit: int | None = None
    buffer: wire.LineBuffer = field(default_factory=wire.LineBuffer)

    def __str__(self) -> str:
        return f"rank {self.number} ({self.host}, pid {self.pid})"

    def where(self) -> str:
        return self.mark.phase if self.mark.phase == wire.STARTING else f"{self.mark.phase}, step {self.mark.step}"


@dataclass(frozen=True)
class Verdict:
    """``asked``: this rank was asked to stop."""

    rank: int
    code: int
    message: str
    asked: bool = False


@dataclass(frozen=True)
class Ending:
    """How all ranks together ended.

    ``stopped``: this process or a rank was asked to stop, or machines were taken away; ``step``: the furthest heard of.
    """

    code: int
    cause: str = ""
    stopped: bool = False
    step: int = -1


def suspects(ranks: list[Rank]) -> list[Rank]:
    """Who keeps the others waiting: ranks outside a collective before ranks inside one, then the one furthest behind.

    Ranks inside the same collective are indistinguishable from outside; all of them are named then.
    """
    outside = [rank for rank in ranks if not rank.mark.waits]
    candidates = outside or ranks
    behind = min(rank.mark.step for rank in candidates)
    return [rank for rank in candidates if rank.mark.step == behind]


def final_code(verdicts: list[Verdict], ranks: int, stopping: bool, ended_by_us: str) -> tuple[int, str]:
    """The exit code of the run and its one-line cause.

    The first verdict that is neither done nor interrupted is the cause: what other ranks say after it follows from it.
    """
    bad = [verdict for verdict in verdicts if verdict.code not in (EXIT_DONE, EXIT_INTERRUPTED)]
    if bad:  # of ranks that say the same, the first knows most: it has the run directory
        cause = min((verdict for verdict in bad if verdict.code == bad[0].code), key=lambda verdict: verdict.rank)
        return cause.code, cause.message
    if len(verdicts) == ranks and all(verdict.code == EXIT_DONE for verdict in verdicts):
        return EXIT_DONE, ""
    if ended_by_us:
        return EXIT_INTERRUPTED, ended_by_us
    said = sorted(
        (verdict for verdict in verdicts if verdict.code == EXIT_INTERRUPTED), key=lambda verdict: verdict.rank
    )
    messages = [verdict.message for verdict in said if verdict.message]
    if messages or stopping:
        return EXIT_INTERRUPTED, messages[0] if messages else "stopped on request"
    return EXIT_INTERRUPTED, "the ranks ended without saying why"
