"""What a training step holds beside weights and slots: as a dry run tells it from the graph, and as it is measured.

    python -m tools.bench_memory

Each in a process of its own, on two threads, with an allocator that gives back what is freed; the measured peak is
VmHWM, set anew after two steps, above what the process held at rest.

Axes: B batch, H W image, C channels.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tools import cells
from trainer import configs
from trainer.config import with_overrides

CELLS = [("quick", 128), ("sabour2017", 128), ("efficient_capsnet", 16), ("cifar10", 32), ("imagenet", 16)]


def main() -> int:
    parser = cells.arguments("python -m tools.bench_memory", __doc__)
    parsed = parser.parse_args()
    if parsed.cell:
        print(json.dumps(_bytes(**parsed.cell)))
        return 0
    print(f"{'recipe':20s}{'batch':>6s}{'measured MB':>13s}{'told MB':>9s}{'ratio':>7s}")
    for recipe, batch in CELLS:
        measured, told = compared(recipe, batch)
        print(f"{recipe:20s}{batch:6d}{measured / 1e6:13.1f}{told / 1e6:9.1f}{measured / told:7.2f}", flush=True)
    return 0


def compared(recipe: str, batch: int) -> tuple[float, float]:
    """(Bytes measured, bytes told) of a step of so many records."""
    measured, told = (
        cells.in_process("tools.bench_memory", {"recipe": recipe, "batch": batch, "what": what}, memory=True)["bytes"]
        for what in ("measured", "told")
    )
    return measured, told


def _bytes(recipe: str, batch: int, what: str, memory: bool) -> dict[str, float]:
    cells.two_threads()
    import numpy as np
    import tensorflow as tf

    from trainer import dry_run, optimizer
    from trainer import step as training_step
    from trainer.distributed import World
    from trainer.model import network

    config = with_overrides(configs.load(recipe), {"train.global_batch_size": batch})
    net = network.build(config.model, precision=config.train.precision)
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    if what == "told":
        return {"bytes": dry_run.step_bytes(config, net, update, batch)}
    step = training_step.make_step(
        config,
        net,
        update,
        lambda _step: tf.constant(1e-6),  # what is learned does not matter, but it must stay finite
        training_step.LossScale.create(config),
        tf.Variable(0, dtype=tf.int64, trainable=False),
        World(),
    )
    random = np.random.default_rng(0)
    given: dict[str, Any] = {
        "image": tf.constant(random.random((batch, *net.image_shape), dtype=np.float32)),
        "label": tf.constant(random.integers(0, config.model.classes, batch, dtype=np.int32)),
        "whole": tf.ones([batch], tf.bool),
    }
    return {"bytes": cells.measure(lambda: tf.constant(step(given, 0).applied), memory=memory)}


if __name__ == "__main__":
    sys.exit(main())
