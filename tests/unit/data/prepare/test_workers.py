"""As many processes as cores and memory allow."""

from __future__ import annotations

import pytest

from trainer import distributed
from trainer.data.prepare import workers
from trainer.data.prepare.plan import Job
from trainer.data.prepare.request import Item
from trainer.launch import memory_kills

GIB = 2**30


def jobs(shards: int, records: int, record_bytes: int) -> list[Job]:
    return [Job("train", "file", [Item("name", 0, "path", 0, record_bytes)] * records) for _ in range(shards)]


IMAGENET = jobs(1024, 1251, 115_000)


@pytest.mark.parametrize(
    ("cores", "limit", "fitting"), [(2, None, 2), (64, 4 * GIB, 7), (64, 2 * GIB, 2), (64, GIB // 2, 1)]
)
def test_a_container_of_little_memory_has_less_workers(
    monkeypatch: pytest.MonkeyPatch, cores: int, limit: int | None, fitting: int
) -> None:
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(memory_kills, "limit", lambda: limit)
    assert workers.processes(None, IMAGENET) == fitting
    assert workers.processes(5, IMAGENET) == 5


def test_there_are_no_more_workers_than_shards() -> None:
    assert workers.processes(5, jobs(3, 10, 1000)) == 3
    assert workers.processes(None, []) == 0  # all are there already
