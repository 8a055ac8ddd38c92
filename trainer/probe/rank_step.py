"""A rank's part in timing a step of several ranks: ``python -m trainer.probe.rank_step SPEC`` under mpirun.

Rank 0 prints JSON.

Axes: K passes, T times.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from trainer import config as configuration
from trainer import configs, distributed, runtime
from trainer.model import costs
from trainer.probe.passes import WARM_UP, passes_of, reference, reference_side
from trainer.probe.together import slowest

ROUNDS = 15


def main(spec: Path) -> int:
    given = json.loads(spec.read_text())
    config = configuration.with_overrides(configs.load(given["recipe"]), given["fields"])
    world = distributed.by_mpirun()
    distributed.join(world)
    runtime.set_up(config, world)
    runs = {"reference": reference(), **passes_of(config, world)}
    taken_TK = []
    for turn in range(WARM_UP + ROUNDS):
        row_K = []
        for name, run in runs.items():
            distributed.barrier(world, f"before.{name}")
            began = time.perf_counter()
            run().numpy()
            row_K.append(time.perf_counter() - began)
        if turn >= WARM_UP:
            taken_TK.append(row_K)
    slowest_TK = slowest(world, np.array(taken_TK))
    if world.is_first:
        seconds = dict(zip(runs, np.median(slowest_TK, axis=0).tolist(), strict=True))
        low_K, high_K = np.quantile(slowest_TK, (0.25, 0.75), axis=0)
        total = costs.costs(config.model).total
        macs = total.multiply_adds * config.train.global_batch_size / world.size
        found = {f"{name}_seconds": value for name, value in seconds.items()}
        found |= {
            "step_spread": float((high_K - low_K)[list(runs).index("step")] / seconds["step"]),
            "parameters": total.parameters,
            "gradient_bytes": 4 * total.parameters,
            "multiply_adds": macs,
            "floor_seconds": costs.FORWARD_AND_BACKWARD * macs / (reference_side() ** 3 / seconds["reference"]),
            "exposed_seconds": seconds["step"] - seconds.get("local", seconds["step"]),
        }
        print(json.dumps(found), flush=True)
    distributed.barrier(world, "end")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
