"""``capsnet launch``: starts the ranks of a run, watches them, passes on stop requests and says how the run ended.

One rank is a child process; more are children of an ``mpirun`` that this program owns. The ranks live in a session of
their own, so that Ctrl-C in a terminal reaches only the supervisor: it sends SIGUSR1, which mpirun forwards unharmed
(SIGTERM would give the ranks two seconds in all). The verdict is what the ranks said; mpirun's exit code is not used.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from trainer.config import WatchdogConfig
from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED, EXIT_WRONG, tell
from trainer.launch import memory_kills, mpi, wire
from trainer.launch.verdicts import Ending, Rank, Verdict, final_code, suspects
from trainer.launch.wire import Mark

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK_SECONDS = 0.1
LEAVE_SECONDS = 5.0
"""How long the other ranks get to leave by themselves once one has left with a verdict, or has died."""


@dataclass(frozen=True)
class Limits:
    """Seconds; the ranks send the configured ones, until then the defaults hold."""

    silence: float = WatchdogConfig().silence_seconds
    hang: float = WatchdogConfig().hang_seconds
    start: float = WatchdogConfig().start_seconds


def killed_here(rank: Rank) -> str:
    """Why a rank of this machine was killed, if the kernel counted it."""
    return memory_kills.sentence(rank.memory_limit) if memory_kills.count() > rank.memory_kills else ""


class Supervisor:
    """One run of ``ranks`` ranks of ``program``; see :func:`launch` and :func:`supervise`."""

    def __init__(
        self,
        ranks: int,
        program: list[str],
        hostfile: Path | None,
        why_killed: Callable[[Rank], str],
        requests: list[int],
    ) -> None:
        self.size = ranks
        self.program = program
        self.hostfile = hostfile
        self.why_killed = why_killed
        self.requests = requests
        self.seen = 0
        self.ranks: dict[int, Rank] = {}
        self.verdicts: list[Verdict] = []
        self.limits = Limits()
        self.shared: bytes = b""
        self.ending = ""
        self.kill_at = float("inf")
        self.interrupts = 0
        self.stopping = False
        self.token = secrets.token_hex(16)
        self.selector = selectors.DefaultSelector()
        self.started_at = time.monotonic()

    def run(self) -> Ending:
        wake, signalled = socket.socketpair()
        for end in (wake, signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:  # the wake-up pipe tells the loop to look
            signal.signal(number, lambda number, _frame: self.requests.append(number))
        here = socket.gethostbyname(socket.gethostname()) if self.hostfile else "127.0.0.1"
        with socket.create_server((here, 0), backlog=max(16, self.size)) as server:
            server.setblocking(False)
            self.selector.register(server, selectors.EVENT_READ, "server")
            self.selector.register(wake, selectors.EVENT_READ, "signal")
            self.child = self._start(f"{here}:{server.getsockname()[1]}")
            try:
                self._on_requests()
                while self.child.poll() is None:
                    self._turn(server, wake)
                self._drain(server)
            finally:
                self._kill_all()
        return self._conclude()

    def _start(self, address: str) -> subprocess.Popen[bytes]:
        size = shutil.get_terminal_size((80, 24))
        environment = {
            **os.environ,
            wire.ENV_ADDRESS: address,
            wire.ENV_TOKEN: self.token,
            wire.ENV_RANKS: str(self.size),
            wire.ENV_TERMINAL: str(size.columns) if sys.stdout.isatty() else "0",
        }
        command = self.program
        if self.size > 1 or self.hostfile or os.environ.get(wire.ENV_HOROVOD):
            mpi.check_installed()
            environment = mpi.environment(environment)
            command = mpi.command(self.size, self.program, self.hostfile, environment)
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    def _turn(self, server: socket.socket, wake: socket.socket) -> None:
        for key, _ in self.selector.select(TICK_SECONDS):
            if key.data == "server":
                self._accept(server)
            elif key.data == "signal":
                wake.recv(64)
                self._on_requests()
            else:
                self._receive(key.data)
        self._watch()

    def _accept(self, server: socket.socket) -> None:
        try:
            link, _ = server.accept()
        except BlockingIOError:
            return
        link.setblocking(False)
        now = time.monotonic()
        newcomer = Rank(-1, "", 0, link, heard_at=now, marked_at=now)
        self.selector.register(link, selectors.EVENT_READ, newcomer)

    def _receive(self, rank: Rank) -> None:
        assert rank.link is not None
        try:
            data = rank.link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            messages = rank.buffer.feed(data)
        except ValueError:
            messages, data = [], b""  # not one of ours
        for message in messages:
            if rank.number < 0 and not self._is_hello(message):
                data = b""
                break
            self._on_message(rank, message)
        if not data:
            self._hang_up(rank)

    def _is_hello(self, message: Any) -> bool:
        """Whether a stranger's first message is that of a rank of this run."""
        return isinstance(message, dict) and message.get("kind") == "hello" and message.get("token") == self.token

    def _on_message(self, rank: Rank, message: dict[str, Any]) -> None:
        rank.heard_at = time.monotonic()
        match message["kind"]:
            case "hello":
                rank.number, rank.host, rank.pid = message["rank"], message["host"], message["pid"]
                rank.memory_kills, rank.memory_limit = message["memory_kills"], message["memory_limit"]
                if rank.number in self.ranks:
                    self._end(f"two processes say that they are rank {rank.number}: the ranks did not find each other")
                self.ranks[rank.number] = rank
                if self.shared:
                    _send(rank, self.shared)
            case "share":
                self.shared = wire.encode("share", value=message["value"])
                for other in self.ranks.values():
                    _send(other, self.shared)
            case "beat":
                mark = Mark(**message["mark"])
                if mark != rank.mark:
                    rank.mark, rank.marked_at = mark, time.monotonic()
                _send(rank, wire.encode("beat"))
            case "limits":
                self.limits = Limits(message["silence"], message["hang"], message["start"])
            case "verdict":
                self.verdicts.append(Verdict(rank.number, message["code"], message["message"], message["asked"]))
                if message["code"] != EXIT_DONE:
                    self.kill_at = min(self.kill_at, time.monotonic() + LEAVE_SECONDS)

    def _hang_up(self, rank: Rank) -> None:
        assert rank.link is not None
        self.selector.unregister(rank.link)
        rank.link.close()
        rank.link = None
        if rank.number >= 0 and all(verdict.rank != rank.number for verdict in self.verdicts):
            why = self.why_killed(rank) or "killed, or out of memory?"
            self._end(f"{rank} ended without a word at {rank.where()}; {why}", LEAVE_SECONDS)

    def _on_requests(self) -> None:
        while self.seen < len(self.requests):
            self.seen += 1
            self._on_request(self.requests[self.seen - 1])

    def _on_request(self, number: int) -> None:
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= 2:
            self._end("stopped at once; the last checkpoint is whole")
        elif not self.stopping:
            self.stopping = True
            starting = len(self.ranks) < self.size  # no step is done before every rank is there
            tell("stopping" + ("" if starting else " after this step and a checkpoint (Ctrl-C again: at once)"))
            if starting:
                self._end("stopped; there was nothing new to save")
            else:
                self.child.send_signal(signal.SIGUSR1)

    def _watch(self) -> None:
        now = time.monotonic()
        if now >= self.kill_at:
            self._kill_all()
            return
        if self.ending:
            return
        present = [rank for rank in self.ranks.values() if rank.link is not None]
        for rank in present:
            if now - rank.heard_at > self.limits.silence:
                self._end(
                    f"{rank} was silent for {self.limits.silence:g} s at {rank.where()}: "
                    "stopped, swapped out or cut off?"
                )
                return
        missing = sorted(set(range(self.size)) - set(self.ranks))
        if missing and now - self.started_at > self.limits.start:
            self._end(f"rank {', '.join(map(str, missing))} did not start within {self.limits.start:g} s")
        stuck = [rank for rank in present if now - rank.marked_at > self._patience(rank)]
        if stuck:
            names = ", ".join(f"{rank} at {rank.where()}" for rank in suspects(present))
            self._end(f"no progress for {self._patience(stuck[0]):g} s because of {names}")

    def _patience(self, rank: Rank) -> float:
        return self.limits.start if rank.mark.phase == wire.STARTING else self.limits.hang

    def _end(self, why: str, after: float = 0.0) -> None:
        """Kills what is left after some seconds, in which ranks that are sound may still say their verdict."""
        if not self.ending:
            self.ending = why
        self.kill_at = min(self.kill_at, time.monotonic() + after)

    def _kill_all(self) -> None:
        """SIGKILL also ends a stopped process. mpirun goes first: it would report the deaths of its ranks."""
        try:
            processes = [psutil.Process(self.child.pid)]
            processes += processes[0].children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            _kill(process.pid)
        for rank in self.ranks.values():  # an mpirun that was killed by others leaves its ranks behind
            if rank.host == socket.gethostname() and rank.link is not None:
                _kill(rank.pid)
        if self.child.poll() is None:
            self.child.wait()

    def _drain(self, server: socket.socket) -> None:
        """Takes the words that the ranks sent before they left."""
        deadline = time.monotonic() + 1.0
        while any(rank.link is not None for rank in self.ranks.values()) and time.monotonic() < deadline:
            for key, _ in self.selector.select(TICK_SECONDS):
                if key.data == "server":
                    self._accept(server)
                elif isinstance(key.data, Rank):
                    self._receive(key.data)

    def _conclude(self) -> Ending:
        ended_by_us = self.ending
        step = max((rank.mark.step for rank in self.ranks.values()), default=-1)
        if not self.ranks and self.child.returncode == EXIT_WRONG:
            return Ending(EXIT_WRONG)  # it has said why
        if not self.ranks and not ended_by_us:
            ended_by_us = f"no rank started: {os.path.basename(self.child.args[0])} ended with {self.child.returncode}"  # type: ignore[index,arg-type]
        code, cause = final_code(self.verdicts, self.size, self.stopping, ended_by_us)
        if cause and code != EXIT_UNEXPECTED:
            tell(cause)
        return Ending(code, cause, self.stopping or any(verdict.asked for verdict in self.verdicts), step)


def _send(rank: Rank, message: bytes) -> None:
    if rank.link is None:
        return
    try:
        rank.link.send(message)
    except OSError:
        return  # a full or closed connection shows itself on the reading side


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def supervise(
    ranks: int,
    program: list[str],
    hostfile: Path | None = None,
    why_killed: Callable[[Rank], str] = killed_here,
    requests: list[int] | None = None,
) -> Ending:
    """Runs ``program`` (a command that opens a Lifeline) on so many ranks, and says how they ended.

    Args:
        hostfile: the machines that the ranks run on; without it, this one.
        why_killed: what is known of a rank that left without a word; "" for nothing.
        requests: signals that asked for a stop; those that are there already count, new ones are added.

    Raises:
        ConfigError: Horovod or mpirun is missing or does not fit.
    """
    return Supervisor(ranks, program, hostfile, why_killed, [] if requests is None else requests).run()


def launch(ranks: int, program: list[str]) -> int:
    """The same on this machine; returns the exit code."""
    return supervise(ranks, program).code
