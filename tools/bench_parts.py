"""``make bench-parts``: where a training step's time and memory go: stem, primary, routing, decoder, optimizer.

A cell is a recipe's network up to a part, forward and backward, in a process of its own; a part costs what its cell
takes over the one before. Repeats are interleaved; times are medians on two threads, memory is what a step holds at
its peak above weights, gradients and inputs, of the whole up to that part. Stem, primary and routing are run with the
sum of squares of what they return as their loss, the decoder with the recipe's own, the optimizer as in training.

Axes: B batch, H W image, C channels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tools import cells
from trainer import configs
from trainer.progress import clock

STEM, PRIMARY, ROUTING, DECODER, STEP = "stem", "primary", "routing", "decoder, loss", "optimizer"
PARTS = [STEM, PRIMARY, ROUTING, DECODER, STEP]
"""Each with all before it. Routing: convolutional capsule layers and the class capsules, with their transforms."""

BATCHES = {"imagenet": 16, "sabour2017_cifar10": 32}
"""Of recipes whose own batch takes minutes on two cores."""


def main() -> int:
    parser = cells.arguments("make bench-parts", __doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: all")
    parsed = parser.parse_args()
    if parsed.cell:
        print(json.dumps(_measure(**parsed.cell)))
        return 0
    unknown = set(parsed.recipes) - set(configs.names())
    if unknown:
        parser.error(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(configs.names())}")
    found = _run(parsed.recipes or configs.names(), parsed.repeats)
    _print(found)
    if parsed.json:
        parsed.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _run(recipes: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """By recipe: seconds of each part's repeats, cumulated, and bytes."""
    found: dict[str, dict[str, Any]] = {
        recipe: {"seconds": {part: [] for part in PARTS}, "bytes": {}} for recipe in recipes
    }
    todo = [
        (recipe, part, repeat == repeats)
        for recipe in recipes
        for repeat in range(repeats + 1)  # the last one for memory
        for part in PARTS
    ]
    began = time.monotonic()
    for done, (recipe, part, memory) in enumerate(todo):
        eta = clock((time.monotonic() - began) / done * (len(todo) - done)) if done else "-:--"
        print(f"[{done + 1}/{len(todo)}, ETA {eta}] {recipe}, {part}", file=sys.stderr, flush=True)
        answer = cells.in_process("tools.bench_parts", {"recipe": recipe, "part": part}, memory=memory)
        if memory:
            found[recipe]["bytes"][part] = answer["bytes"]
        else:
            found[recipe]["seconds"][part].append(answer["seconds"])
    return found


def _print(found: dict[str, dict[str, Any]]) -> None:
    print(f"{'recipe, batch':26}  {'images/s':>8}  {'ms':>6}  " + "  ".join(f"{part:>13}" for part in PARTS))
    for recipe, measured in found.items():
        batch = batch_of(recipe)
        cumulated = [1e3 * statistics.median(measured["seconds"][part]) for part in PARTS]
        own = [now - before for before, now in zip([0.0, *cumulated], cumulated, strict=False)]
        times = "  ".join(f"{ms:7.0f} ({ms / cumulated[-1]:3.0%})"[:15].rjust(13) for ms in own)
        label = f"{recipe}, {batch}"
        print(f"{label:26}  {1e3 * batch / cumulated[-1]:8,.0f}  {cumulated[-1]:6,.0f}  {times}")
        held = "  ".join(f"{measured['bytes'][part] / 1e6:10,.0f} MB" for part in PARTS)
        print(f"{'  memory up to there':26}  {'':8}  {'':6}  {held}")


def batch_of(recipe: str) -> int:
    return BATCHES.get(recipe, configs.load(recipe).train.global_batch_size)


# one cell, in a process of its own


def _measure(recipe: str, part: str, memory: bool) -> dict[str, float]:
    cells.two_threads()
    step, gradient_bytes = _step(recipe, part)
    found = cells.measure(step, memory=memory)
    return {"bytes": max(0, found - gradient_bytes)} if memory else {"seconds": found}


def _step(recipe: str, part: str) -> tuple[Callable[[], Any], int]:
    """A step of the network up to a part, and the bytes of the gradients that it returns."""
    import numpy as np
    import tensorflow as tf

    from trainer import losses, optimizer
    from trainer.model.network import build

    config = configs.load(recipe)
    net = build(config.model)
    random = np.random.default_rng(0)
    images_BHWC = tf.constant(random.random((batch_of(recipe), *net.image_shape), dtype=np.float32))
    labels_B = tf.constant(random.integers(0, config.model.classes, batch_of(recipe)))
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    update.learning_rate.assign(1e-6)  # what is learned does not matter, but it must stay finite

    def loss() -> Any:
        if part in (DECODER, STEP):
            terms = losses.loss_terms(config.loss, net(images_BHWC, labels_B), images_BHWC, labels_B)
            return tf.add_n([tf.reduce_mean(term) for term in terms.values()])
        found = net.stem(images_BHWC)
        if part != STEM:
            found = net.primary(found)
        if part == ROUTING:
            found, _ = net.route(found)
        return tf.add_n([tf.reduce_sum(tf.square(tensor)) for tensor in tf.nest.flatten(found)])

    reached = _reached(net, part)

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            total = loss()
        sources = [variable.value for variable in reached]
        gradients = tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if part != STEP:
            return total, gradients
        update.apply(gradients, reached)
        return total

    returned = [] if part == STEP else reached
    return step, 4 * sum(int(np.prod(variable.shape)) for variable in returned)


def _reached(net: Any, part: str) -> list[Any]:
    """Trainable weights of a part and all before it."""
    if part in (DECODER, STEP):
        return list(net.trainable_variables)
    layers = [net.stem]
    if part != STEM:
        layers.append(net.primary)
    if part == ROUTING:
        layers += [*net.capsule_layers, net.class_capsules]
    return [variable for layer in layers for variable in layer.trainable_variables]


if __name__ == "__main__":
    sys.exit(main())
