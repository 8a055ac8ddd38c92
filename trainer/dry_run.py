"""``capsnet train --dry-run``: what would run. Builds the network, writes nothing and trains nothing.

What a step will hold is told from its graph (``held``). On two threads of a CPU the measured peaks of quick,
sabour2017, efficient_capsnet, cifar10 at batch 32 and imagenet at batch 16 were 1.04 to 1.30 times that, one run each,
and so were those of EM routing and stored votes (``python -m tools.bench_memory``); on a GPU it was not compared.

Axes: B batch, H W image, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from trainer import described, evaluation, held, losses, optimizer, weights
from trainer import step as training_step
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data.order import train_order, window_bytes
from trainer.distributed import World
from trainer.model import network
from trainer.model.network import CapsNet
from trainer.plan import Plan

MB = 1e6


def told(plan: Plan, ranks: int, say: Callable[[str], None]) -> None:
    """Says in lines what a run of so many ranks would do."""
    config = plan.config
    index = data_index.load_index(config.data.uri, config.storage)
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    if plan.weights is not None:
        weights.take(net, plan.weights, new_head=plan.new_head)
    say(f"run directory: {plan.directory.shown}, {_begin(plan)}")
    say(f"recipe {config.recipe or '(none)'}, {ranks} rank{'s' if ranks > 1 else ''}")
    say(described.data_line(config, index))
    say(described.test_line(config, index))
    part = f", in {config.train.accumulate} parts" if config.train.accumulate > 1 else ""
    say(
        f"a rank's batch: {config.train.global_batch_size // ranks}{part}, of {config.model.image_size}x"
        f"{config.model.image_size}x{config.model.channels} in {config.train.precision}"
    )
    for line in described.routing_lines(config, net, ranks):
        say(line)
    say("parameters:")
    layers = parameters(net)
    width = max(map(len, layers))
    for name, count in [*layers.items(), ("all", sum(layers.values()))]:
        say(f"  {name:{width}s} {count:12,d}")
    for line in memory_lines(config, net, update, config.train.global_batch_size // ranks):
        say(line)
    records = window_bytes(train_order(config, index), ranks)
    say(f"and of records to be shuffled (data.shuffle_window) {records / MB:,.1f} MB")
    say("nothing was written; without --dry-run it runs")


def _begin(plan: Plan) -> str:
    if plan.resume is not None:
        return f"goes on from step {plan.resume.state.step}"
    return "with the weights of another run" if plan.weights is not None else "from its beginning"


def parameters(net: CapsNet) -> dict[str, int]:
    """Trainable numbers of each layer, in the order of the forward pass."""
    counts: dict[str, int] = {}
    for variable in net.trainable_variables:
        layer = weights.layer_of(variable.path)
        counts[layer] = counts.get(layer, 0) + math.prod(variable.shape)
    return counts


def memory_lines(
    config: RunConfig, net: CapsNet, update: keras.optimizers.Optimizer, rank_batch_size: int
) -> list[str]:
    """What a rank holds, beside TensorFlow itself."""
    kept = _bytes(net.trainable_variables)
    in_step, in_test = step_bytes(config, net, update, rank_batch_size), evaluation_bytes(config, net)
    always = kept + _bytes(update.variables)
    rows = [
        ("weights", kept),
        ("optimizer's slots", always - kept),
        ("gradients", kept),
        ("activations, votes", max(0, in_step - kept)),
        ("in all, in a training step", always + in_step),
        (f"in all, in a test batch of {config.evaluate.batch_size}", always + in_test),
    ]
    width = max(len(name) for name, _ in rows)
    return [
        "memory of a rank at its peak, beside TensorFlow itself and the input, as the",
        "graph tells it (on a CPU gradients and activations took up to 1.3 times that):",
        *(f"  {name:{width}s} {size / MB:9,.1f} MB" for name, size in rows),
    ]


def _bytes(variables: Iterable[keras.Variable]) -> int:
    return sum(math.prod(v.shape) * v.value.dtype.size for v in variables)


def step_bytes(config: RunConfig, net: CapsNet, update: keras.optimizers.Optimizer, rank_batch_size: int) -> int:
    """What a training step holds at its peak: gradients, activations, votes or the blocks of them."""
    step = training_step.make_step(
        config,
        net,
        update,
        optimizer.learning_rate(config.optimizer, 1, 1),
        training_step.LossScale.create(config),
        tf.Variable(0, dtype=tf.int64, trainable=False),
        World(),
        losses.spread_margin_schedule(config.loss, 1),
    )
    image, label, *sources = _batch(config, rank_batch_size)
    whole, stop = tf.TensorSpec([rank_batch_size], tf.bool), tf.TensorSpec([], tf.int32)
    return held.peak(step.graph.get_concrete_function(image, label, whole, stop, *sources).graph)


def evaluation_bytes(config: RunConfig, net: CapsNet) -> int:
    """What scoring a test batch holds at its peak."""

    @tf.function(autograph=False)
    def score(image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, *sources: tf.Tensor) -> tf.Tensor:
        outputs = evaluation.forward(config, net, image, label, *sources)
        return evaluation.columns(config, outputs, image, label, weight, *sources)

    count = config.evaluate.batch_size
    image, label, *sources = _batch(config, count)
    weight = tf.TensorSpec([count], tf.float32)
    return held.peak(score.get_concrete_function(image, label, weight, *sources).graph)


def _batch(config: RunConfig, count: int) -> list[tf.TensorSpec]:
    """Images, labels, and of scenes their sources, as ``pipeline.train_batches`` gives them."""
    side, several = config.model.image_size, [config.objects] if config.objects > 1 else []
    image_HWC = [side, side, config.model.channels]
    specs = [tf.TensorSpec([count, *image_HWC], tf.float32), tf.TensorSpec([count, *several], tf.int32)]
    return [*specs, *([tf.TensorSpec([count, *several, *image_HWC], tf.float32)] if several else [])]
