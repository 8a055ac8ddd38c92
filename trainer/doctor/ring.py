"""Two real ranks that add up a number: ``python -m trainer.doctor.ring``."""

from __future__ import annotations

import os
import sys

from trainer import distributed, rank
from trainer.distributed import World
from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED
from trainer.launch import wire
from trainer.launch.lifeline import Lifeline
from trainer.launch.supervisor import launch

RANKS = 2


def _add(_lifeline: Lifeline, world: World) -> int:
    import tensorflow as tf

    distributed.join(world)
    total = float(distributed.sum_over_ranks(world, tf.constant([world.rank + 1.0]), "ring")[0])
    distributed.barrier(world, "end")
    if world.is_first:
        print(f"started by mpirun, and add up to {total:g}")
    return EXIT_DONE if total == RANKS * (RANKS + 1) / 2 else EXIT_UNEXPECTED


if __name__ == "__main__":
    if wire.ENV_ADDRESS in os.environ:
        sys.exit(rank.guarded(_add))
    sys.exit(launch(RANKS, [sys.executable, "-m", "trainer.doctor.ring"]))
