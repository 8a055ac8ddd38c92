"""A rank's part in timing allreduce: ``python -m trainer.probe.allreduce`` under mpirun; rank 0 prints JSON.

Axes: M message sizes, T times, R ranks.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import tensorflow as tf

from trainer import distributed

SIZES = tuple(2**power for power in range(10, 27, 2))
"""Bytes: 1 KiB to 64 MiB."""
WARM_UP, ROUNDS = 3, 9
BUDGET_SECONDS = 60.0
"""No new round after so long."""


def main() -> int:
    world = distributed.by_mpirun()
    distributed.join(world)
    messages = [tf.zeros([size // 4]) for size in SIZES]
    taken_TM: list[list[float]] = []
    began = time.monotonic()
    for turn in range(WARM_UP + ROUNDS):
        row_M = []
        for size, message in zip(SIZES, messages, strict=True):
            distributed.barrier(world, f"size.{size}")  # all ranks begin together
            start = time.perf_counter()
            distributed.sum_over_ranks(world, message, f"message.{size}").numpy()
            row_M.append(time.perf_counter() - start)
        if turn >= WARM_UP:
            taken_TM.append(row_M)
        spent = distributed.sum_values(world, [float(time.monotonic() - began > BUDGET_SECONDS)], "spent")
        if turn >= WARM_UP + 2 and spent[0] > 0:  # the same on all ranks
            break
    mine_RTM = np.zeros((world.size, len(taken_TM), len(SIZES)))
    mine_RTM[world.rank] = taken_TM
    all_RTM = distributed.sum_values(world, mine_RTM.ravel().tolist(), "times").reshape(mine_RTM.shape)
    if world.is_first:
        slowest_TM = all_RTM.max(axis=0)
        low_M, median_M, high_M = np.quantile(slowest_TM, (0.25, 0.5, 0.75), axis=0)
        samples = [
            {"bytes": size, "seconds": median, "low": low, "high": high}
            for size, median, low, high in zip(SIZES, median_M.tolist(), low_M.tolist(), high_M.tolist(), strict=True)
        ]
        print(json.dumps({"ranks": world.size, "rounds": len(taken_TM), "samples": samples}), flush=True)
    distributed.barrier(world, "end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
