"""A link's time is what its speed and latency say, whoever shares it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from trainer.probe.slow_link import CREDIT_SECONDS, Link

LATE = 1.0
"""Seconds that a busy machine may wake a sleeper late; a link of half the speed would be later."""


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.parametrize("connections", [1, 4])
def test_all_connections_together_have_the_speed_of_the_link(connections: int) -> None:
    link, pieces, size = Link(mbit=8, latency_ms=0), 32, 2_000_000 // 32
    threads = [
        threading.Thread(target=lambda: [link.cross(size) for _ in range(pieces // connections)])
        for _ in range(connections)
    ]

    def all_of_them() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    took = seconds(all_of_them)  # 2 MB at 1 MB/s
    assert 2.0 - CREDIT_SECONDS <= took < 2.0 + LATE
    assert link.sent == pieces * size


def test_what_was_not_sent_while_idle_cannot_be_sent_later() -> None:
    link = Link(mbit=8, latency_ms=0)
    time.sleep(0.3)
    assert seconds(lambda: link.cross(500_000)) >= 0.5 - CREDIT_SECONDS


def test_latency_comes_before_each_answer_and_takes_nothing_of_the_speed() -> None:
    link = Link(mbit=float("inf"), latency_ms=200)
    assert seconds(link.request) >= 0.2
    assert seconds(lambda: link.cross(10**9)) < LATE
