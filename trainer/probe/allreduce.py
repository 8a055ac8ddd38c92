"""A rank's part in timing allreduce: ``python -m trainer.probe.allreduce [RATE ...]`` under mpirun; rank 0 prints JSON.

Every round takes each message over each link, so that a slow minute of the machine falls on all of them.

Axes: L links, M message sizes, T times.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer import distributed
from trainer.distributed import World
from trainer.probe import link
from trainer.probe.together import slowest

SIZES = tuple(2**power for power in range(10, 27, 2))
"""Bytes: 1 KiB to 64 MiB."""
LONGEST_SECONDS = 1.0
"""Of a message, by the slowest link alone: larger ones are left out, down to so many sizes."""
LEAST_SIZES = 4
WARM_UP, LEAST, MOST = 3, 5, 25
BUDGET_SECONDS = 30.0
"""No new round after so long, once there are LEAST."""


def main(rates: Sequence[str]) -> int:
    world = distributed.by_mpirun()
    distributed.join(world)
    sizes = sizes_for(world.size, rates)
    messages = [tf.zeros([size // 4]) for size in sizes]
    for _ in range(WARM_UP):  # at full speed: names are agreed on and buffers made
        _round(world, messages)
    taken_TLM: list[list[list[float]]] = []
    began = time.monotonic()
    while len(taken_TLM) < MOST:
        taken_TLM.append([])
        for rate in rates or [""]:
            distributed.barrier(world, "between")  # rank 0 may have all, and another still be receiving
            if rate and world.is_first:
                link.slow_down(rate)
            taken_TLM[-1].append(_round(world, messages))
        spent = distributed.sum_values(world, [float(time.monotonic() - began > BUDGET_SECONDS)], "spent")
        if len(taken_TLM) >= LEAST and spent[0] > 0:  # the same on all ranks
            break
    slowest_TLM = slowest(world, np.array(taken_TLM))
    if world.is_first:
        runs = [_run(rate, sizes, slowest_TLM[:, at]) for at, rate in enumerate(rates or [""])]
        print(json.dumps({"ranks": world.size, "rounds": len(taken_TLM), "runs": runs}), flush=True)
    distributed.barrier(world, "end")
    return 0


def sizes_for(ranks: int, rates: Sequence[str]) -> list[int]:
    """Of messages that no link takes too long for. All ranks send over one loopback interface at once."""
    slowest = min(map(link.bytes_per_second, rates), default=float("inf"))
    most = LONGEST_SECONDS * slowest / (2 * (ranks - 1))
    return [size for at, size in enumerate(SIZES) if size <= most or at < LEAST_SIZES]


def _round(world: World, messages: Sequence[tf.Tensor]) -> list[float]:
    row_M = []
    for at, message in enumerate(messages):
        distributed.barrier(world, f"before.{at}")  # all ranks begin together
        start = time.perf_counter()
        distributed.sum_over_ranks(world, message, f"message.{at}").numpy()
        row_M.append(time.perf_counter() - start)
    return row_M


def _run(rate: str, sizes: Sequence[int], times_TM: np.ndarray) -> dict[str, object]:
    low_M, median_M, high_M = np.quantile(times_TM, (0.25, 0.5, 0.75), axis=0).tolist()
    samples = [
        {"bytes": size, "seconds": median, "low": low, "high": high}
        for size, median, low, high in zip(sizes, median_M, low_M, high_M, strict=True)
    ]
    return {"rate": rate, "samples": samples}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
