"""A link of a stated speed, shared by all that crosses it, and of a stated latency. Simulated: by waiting.

Not simulated: what one connection can carry by itself, slow start, loss, and that connecting costs round trips.
"""

from __future__ import annotations

import threading
import time

CREDIT_SECONDS = 0.005
"""By which a sleep may end late without the link's losing speed: what was missed in so long is made up for."""
BITS = 8e-6
"""Megabits of a byte."""


class Link:
    """Safe to use from many threads.

    Attributes:
        sent: bytes that have crossed, or are crossing.
    """

    def __init__(self, mbit: float, latency_ms: float) -> None:
        """``mbit``: megabits (1e6) a second, infinite for no bound; ``latency_ms``: before the answer to a request."""
        self.sent = 0
        self._seconds_a_byte, self._latency = BITS / mbit, latency_ms / 1e3
        self._free_at = 0.0
        self._lock = threading.Lock()

    def request(self) -> None:
        """Waits until a request's answer begins to come."""
        time.sleep(self._latency)

    def cross(self, size: int) -> None:
        """Waits until so many bytes are over, behind those that came before."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - CREDIT_SECONDS) + size * self._seconds_a_byte
            self.sent += size
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)
