"""A rank's side of supervision: stop requests, heartbeats and the verdict it leaves.

A thread of its own reads signals through a wake-up pipe (a Python signal handler would run only after the graph call
that is under way) and talks to the supervisor, so that both work while TensorFlow computes, compiles or hangs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any, NoReturn

from trainer.config import WatchdogConfig
from trainer.errors import EXIT_INTERRUPTED, InterruptedRun, tell
from trainer.launch import memory_kills, wire
from trainer.launch.wire import Mark

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
NOTHING_NEW = "stopped; there was nothing new to save"


def _leave_to_thread(_number: int, _frame: FrameType | None) -> None:
    """Python needs a handler for the wake-up pipe to be written to; the thread does the work."""


class Lifeline:
    """Opened once, as the first thing a training process does. All methods may be called from any thread."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._mark = wire.AT_START
        self._stop = threading.Event()
        self._stop_at = 0.0
        self._interrupts = 0
        self._said_verdict = False
        self.silence_seconds = WatchdogConfig().silence_seconds
        self.stop_seconds = WatchdogConfig().stop_seconds
        self._lock = threading.Lock()
        self._link: socket.socket | None = None
        self._heard = time.monotonic()
        self._shared: Any = None
        self._has_shared = threading.Event()
        self._wake, self._signalled = socket.socketpair()
        self._wake.setblocking(False)
        self._signalled.setblocking(False)

    def open(self) -> Lifeline:
        """Installs the signal handlers, says hello to the supervisor if there is one, and starts the thread."""
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, _leave_to_thread)
        address = os.environ.get(wire.ENV_ADDRESS)
        if address:
            try:
                self._link = wire.connect(address)
            except OSError as error:
                raise InterruptedRun(f"rank {self.rank}: no supervisor at {address} ({error}); was it ended?") from None
            token = os.environ.get(wire.ENV_TOKEN, "")
            self._send(
                wire.encode(
                    "hello",
                    token=token,
                    rank=self.rank,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    memory_kills=memory_kills.count(),
                    memory_limit=memory_kills.limit(),
                ),
            )
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()
        return self

    @property
    def supervised(self) -> bool:
        return self._link is not None

    @property
    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        """As a signal would: finish the step, save, leave with 75. At once where no step has been done."""
        if not self._stop.is_set():
            self._stop_at = time.monotonic()
            self._stop.set()
        if self._mark.phase == wire.STARTING:
            self.leave_now(NOTHING_NEW)

    def mark(self, phase: str, step: int, *, waits: bool = False) -> None:
        """Says where the rank is; a mark that does not change for hang_seconds is taken for a hang."""
        self._mark = Mark(phase, step, waits, self._mark.tick + 1)
        if self._stop.is_set() and phase == wire.STARTING:
            self.leave_now(NOTHING_NEW)

    def limits(self, silence_seconds: float, hang_seconds: float, start_seconds: float, stop_seconds: float) -> None:
        """Takes the configured limits and tells them to the supervisor."""
        self.silence_seconds, self.stop_seconds = silence_seconds, stop_seconds
        self._send(wire.encode("limits", silence=silence_seconds, hang=hang_seconds, start=start_seconds))

    def share(self, value: Any) -> None:
        """Gives a JSON value to every other rank, through the supervisor: before TensorFlow or MPI is up."""
        self._send(wire.encode("share", value=value))

    def shared(self) -> Any:
        """What rank 0 shared; waits for it. The supervisor ends all ranks where rank 0 never comes."""
        self._has_shared.wait()
        return self._shared

    def verdict(self, code: int, message: str = "") -> None:
        """How this rank ended; the first verdict of a process counts."""
        with self._lock:
            if self._said_verdict:
                return
            self._said_verdict = True
        self._send(wire.encode("verdict", code=code, message=message, asked=self._stop.is_set()))

    def leave_now(self, message: str) -> NoReturn:
        """Ends the process from any thread without waiting for a graph call; files are whole, as writes are atomic."""
        self.verdict(EXIT_INTERRUPTED, message)
        if self._link is None:
            tell(message)
        os._exit(EXIT_INTERRUPTED)

    def _send(self, message: bytes) -> None:
        if self._link is not None:
            try:
                with self._lock:
                    self._link.sendall(message)
            except OSError:
                self._link = None
                os._exit(EXIT_INTERRUPTED)  # the supervisor is gone: nobody waits for this rank

    def _watch(self) -> None:
        buffer = wire.LineBuffer()
        next_beat = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                self._send(wire.encode_beat(self._mark))
                next_beat = now + wire.BEAT_SECONDS
            sources = [self._wake] + ([self._link] if self._link else [])
            ready, _, _ = select.select(sources, [], [], max(0.0, next_beat - now))
            if self._wake in ready:
                self._on_signals(self._wake.recv(64))
            if self._link in ready and self._link is not None:
                self._on_supervisor(buffer)
            if self._link and time.monotonic() - self._heard > self.silence_seconds:
                self.leave_now(f"rank {self.rank}: the supervisor was silent for {self.silence_seconds:g} s")
            if self._stop.is_set() and time.monotonic() - self._stop_at > self.stop_seconds:
                self.leave_now(
                    f"rank {self.rank}: the stop request was not followed in {self.stop_seconds:g} s "
                    f"({self._mark.phase}, step {self._mark.step}); ended at the last checkpoint"
                )

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number not in STOP_SIGNALS:
                continue
            self._interrupts += number == signal.SIGINT
            if self._interrupts >= 2:
                self.leave_now("stopped at once; the last checkpoint is whole")
            if not self._stop.is_set() and self._link is None and self._mark.phase != wire.STARTING:
                tell("stopping after this step and a checkpoint (Ctrl-C again: at once)")
            self.request_stop()

    def _on_supervisor(self, buffer: wire.LineBuffer) -> None:
        assert self._link is not None
        try:
            data = self._link.recv(65536)
        except OSError:
            data = b""
        if not data:
            os._exit(EXIT_INTERRUPTED)  # see _send
        self._heard = time.monotonic()
        for message in buffer.feed(data):
            if message["kind"] == "share":
                self._shared = message["value"]
                self._has_shared.set()
