"""``capsnet train --dry-run``: what would run. Builds the network, writes nothing and trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from trainer import described, optimizer, weights
from trainer import plan as planning
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.model import network
from trainer.model.network import CapsNet
from trainer.plan import Command, Plan

MB = 1e6
FREE = ("Const", "Placeholder", "VarHandleOp", "ReadVariableOp", "Reshape", "Identity", "Shape", "NoOp", "Squeeze")
"""Operations whose outputs are other tensors' memory, or next to none."""


def run(command: Command, ranks: int, say: Callable[[str], None]) -> None:
    """Says it in lines; refuses what a run of so many ranks would refuse.

    Raises:
        As ``plan.planned``.
    """
    with planning.previewed(command, ranks, say) as plan:
        _say(plan, ranks, say)


def _say(plan: Plan, ranks: int, say: Callable[[str], None]) -> None:
    config = plan.config
    index = data_index.load_index(config.data.uri, config.storage)
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    if plan.weights is not None:
        weights.take(net, plan.weights, new_head=plan.new_head)
    say(f"run directory: {plan.directory.shown}, {_begin(plan)}")
    say(f"recipe {config.recipe or '(none)'}, {ranks} rank{'s' if ranks > 1 else ''}")
    say(described.data_line(config, index))
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
    held = sum(math.prod(v.shape) * v.value.dtype.size for v in net.trainable_variables)
    slots = sum(math.prod(v.shape) * v.value.dtype.size for v in update.variables)
    passed = activations(config, net, described.rank_batch(config, ranks))
    say("memory of a rank, beside TensorFlow itself:")
    for name, size in (("weights", held), ("gradients", held), ("optimizer", slots), ("forward pass", passed)):
        say(f"  {name:20s} {size / MB:9,.1f} MB")
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


def activations(config: RunConfig, net: CapsNet, batch: int) -> int:
    """Bytes of everything that the forward pass of a batch computes, as if all were kept for the backward pass.

    What happens inside compiled routing is not in it (the lines on routing tell that), nor what the backward pass
    needs for itself.
    """

    def forward(images_BHWC: tf.Tensor, labels_B: tf.Tensor) -> object:
        return net(images_BHWC, labels_B)

    images = tf.TensorSpec([batch, *net.image_shape], tf.float32)
    labels = tf.TensorSpec([batch, *([2] if config.data.overlap.enabled else [])], tf.int64)
    graph = tf.function(forward, autograph=False).get_concrete_function(images, labels).graph
    sizes = [
        tensor.shape.num_elements() * tensor.dtype.size
        for operation in graph.get_operations()
        if operation.type not in FREE
        for tensor in operation.outputs
        if tensor.dtype.is_floating and tensor.shape.is_fully_defined()
    ]
    return sum(sizes)
