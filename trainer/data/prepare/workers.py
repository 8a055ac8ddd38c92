"""How many processes make shards at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from trainer import distributed
from trainer.data.prepare.plan import Job
from trainer.launch import memory_kills

log = logging.getLogger("capsnet")

COPIES = 2
"""Of a shard in a worker: its records, and the file that they make."""
WORKER_BYTES = 150 * 2**20
"""What a worker needs besides: Python and its libraries, an image and its pixels."""
ITEM_BYTES = 512
"""What the parent holds of each image: its name and where it lies."""


def processes(asked: int | None, jobs: Sequence[Job]) -> int:
    """As many as were asked for, or as cores and memory allow; not more than there are jobs."""
    if asked is None:
        memory, cores = memory_bytes(), distributed.cores()
        asked = affordable(cores, memory, jobs)
        if asked < min(cores, len(jobs)):
            log.info("%d workers on %d cores: %.1f GiB of memory hold no more", asked, cores, memory / 2**30)
    return min(asked, len(jobs))


def memory_bytes() -> int:
    """What this container may use, or what the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(machine, memory_kills.limit() or machine)


def affordable(cores: int, memory: int, jobs: Sequence[Job]) -> int:
    """Workers that fit into so many bytes beside their parent, at least one."""
    largest = max((sum(item.length for item in job.items) for job in jobs), default=0)
    parent = WORKER_BYTES + ITEM_BYTES * sum(len(job.items) for job in jobs)
    return max(1, min(cores, (memory - parent) // (WORKER_BYTES + COPIES * largest)))
