"""Seconds, or memory, of a network's passes, in this process: ``python -m trainer.probe.passes times|memory SPEC``.

On a GPU both are measured at once: its allocator counts what it hands out, however much it keeps.

Forward, forward with backward, and the whole step with its update are timed in turn, with a matrix product of known
size beside each, so that a slow minute of the machine falls on all and shows.
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import config as configuration
from trainer import configs, devices, distributed, losses, optimizer, runtime
from trainer.config import RunConfig
from trainer.distributed import World
from trainer.memory import peak_mib
from trainer.model import costs, network, routing
from trainer.probe.records import COLLAPSED, MEMORY, NOT_FINITE

ALONE = World()
SIDE, GPU_SIDE = 768, 8192
"""Of the reference matrix product."""
ROUNDS, SECONDS = 7, 10.0
"""At least three rounds, at most so many, and no new one after so many seconds."""
WARM_UP = 2
SMALL_LENGTH = 1e-3


def main(what: str, spec: Path) -> int:
    """Prints what it found as the last line, in JSON."""
    given = json.loads(spec.read_text())
    config = configuration.with_overrides(configs.load(given["recipe"]), given["fields"])
    runtime.set_up(config, ALONE)
    try:
        passes = passes_of(config)
        found: dict[str, Any] = {"held_mib": _memory(passes["step"])} if what == "memory" or devices.on_gpu() else {}
        found |= measured(config, passes) if what == "times" else {}
    except tf.errors.ResourceExhaustedError as error:
        found = {"outcome": MEMORY, "why": str(error).splitlines()[0]}
    print(json.dumps(found))
    return 0


def measured(config: RunConfig, passes: Mapping[str, Callable[[], tf.Tensor]]) -> dict[str, Any]:
    """Numbers by name; times are medians in s, ``spread`` the distance of their quartiles over the median."""
    times: dict[str, list[float]] = {name: [] for name in ("reference", *passes)}
    product = reference()
    for run in (product, *passes.values()):
        for _ in range(WARM_UP):
            run().numpy()
    began = time.monotonic()
    for turn in range(ROUNDS):
        if turn >= 3 and time.monotonic() - began > SECONDS:
            break
        for name, run in (("reference", product), *passes.items()):
            times[name].append(_timed(run))
    numbers: dict[str, Any] = {}
    for name, seconds in times.items():
        numbers[f"{name}_seconds"] = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4)
        numbers[f"{name}_spread"] = (high - low) / statistics.median(seconds)
    total = costs.costs(config.model).total
    macs = total.multiply_adds * config.train.global_batch_size
    rate = reference_side() ** 3 / numbers["reference_seconds"]
    numbers |= {
        "multiply_adds": macs,
        "parameters": total.parameters,
        "floor_seconds": costs.FORWARD_AND_BACKWARD * macs / rate,  # at the rate of the matrix product
        "rounds": len(times["step"]),
    }
    loss = float(passes["forward"]())
    if not np.isfinite(loss):
        return {"outcome": NOT_FINITE, "why": f"the loss is {loss}", **numbers}
    state = _state(config)
    if state.get("longest", 1.0) < SMALL_LENGTH:
        why = f"the longest class capsule has length {state['longest']:.1e} at the start"
        return {"outcome": COLLAPSED, "why": why, **numbers, **state}
    return {**numbers, **state}


def passes_of(config: RunConfig, world: World = ALONE) -> dict[str, Callable[[], tf.Tensor]]:
    """``forward``, ``gradient`` (forward and backward) and the whole ``step`` of this rank's part of a batch.

    Of several ranks also ``local``, a step whose gradients stay with the rank, and ``reduction``, that of gradients
    alone.
    """
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    update.learning_rate.assign(0.0)  # every round sees the same network
    random = np.random.default_rng(config.seed)
    batch = config.train.global_batch_size // world.size
    images_BHWC = tf.constant(random.random((batch, *net.image_shape), dtype=np.float32))
    labels_B = tf.constant(random.integers(0, config.model.classes, batch))
    sources = [variable.value for variable in net.trainable_variables]
    names = [variable.path for variable in net.trainable_variables]

    def loss() -> tf.Tensor:
        terms = losses.loss_terms(config.loss, net(images_BHWC, labels_B), images_BHWC, labels_B)
        return tf.add_n([tf.reduce_mean(tf.cast(term, tf.float32)) for term in terms.values()])

    fused = devices.whole_passes(config.train)

    @tf.function(jit_compile=fused, autograph=False)
    def forward() -> tf.Tensor:
        return loss()

    @tf.function(jit_compile=fused, autograph=False)
    def differentiated() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            total = loss()
        return total, tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @tf.function(autograph=False)
    def gradient() -> tf.Tensor:
        total, gradients = differentiated()
        return total + 0.0 * tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32)) for each in gradients])

    @tf.function(jit_compile=fused, autograph=False)
    def apply(*gradients: tf.Tensor) -> None:
        update.apply(gradients, net.trainable_variables)

    @tf.function(autograph=False)
    def local() -> tf.Tensor:
        total, gradients = differentiated()
        apply(*gradients)
        return total

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        total, gradients = differentiated()
        apply(*distributed.mean_gradients(world, gradients, names, config.train.compression))
        return total

    @tf.function(autograph=False)
    def reduction() -> tf.Tensor:
        alone = [f"alone.{name}" for name in names]
        reduced = distributed.mean_gradients(world, sources, alone, config.train.compression)
        return tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32)) for each in reduced])

    found = {"forward": forward, "gradient": gradient, "step": step}
    return found if world.alone else {**found, "local": local, "reduction": reduction}


def reference_side() -> int:
    return GPU_SIDE if devices.on_gpu() else SIDE


def reference() -> Callable[[], tf.Tensor]:
    left = tf.random.stateless_uniform([reference_side()] * 2, [0, 0])

    @tf.function(autograph=False)
    def product() -> tf.Tensor:
        return tf.reduce_sum(left @ left)

    return product


def _timed(run: Callable[[], tf.Tensor]) -> float:
    began = time.perf_counter()
    run().numpy()
    return time.perf_counter() - began


def _memory(step: Callable[[], tf.Tensor]) -> float:
    """MiB that a step holds at its peak above a process at rest, weights not counted."""
    for _ in range(WARM_UP):
        step().numpy()
    if devices.on_gpu():
        return devices.gpu_bytes(lambda: step().numpy()) / 2**20
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    rest = peak_mib()
    step().numpy()
    return peak_mib() - rest


def _state(config: RunConfig) -> dict[str, float]:
    """Of couplings and class capsules of a fresh network; ``longest`` where lengths are what tells classes apart."""
    if config.model.head.kind != "capsules":
        return {}
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    random = np.random.default_rng(config.seed)
    images_BHWC = tf.constant(random.random((4, *net.image_shape), dtype=np.float32))
    outputs = net(images_BHWC, trace=True)
    found = {}
    if routing.get(config.model.routing.algorithm).ACTIVATED_BY_LENGTH:
        found["longest"] = float(np.max(outputs.class_scores_BJ))
    for trace in list(outputs.traces.values())[-1:]:
        found["entropy"] = float(trace.entropy_R[-1])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
