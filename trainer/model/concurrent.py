"""Concurrent routing: all capsule layers iterate together (Tsai et al. 2020, section 4, procedure 2).

In turn, a layer makes its R iterations before the next one begins. Concurrently, a first pass goes through all layers,
and in each later iteration every layer is routed once, all from what the iteration before left: an update of a layer
reaches the one above it an iteration later, and each layer's iterations see children that still change.

Axes: B batch, N capsules of a layer, R iterations.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.model.capsules import CapsuleLayer
from trainer.model.routing import Capsules
from trainer.model.routing.trace import RoutingTrace, following


def route(
    layers: Sequence[CapsuleLayer], capsules: Capsules, iterations: int, *, trace: bool, coupling_records: int
) -> tuple[Capsules, dict[str, RoutingTrace]]:
    """Class capsules from primary ones, and with ``trace`` what each layer's couplings did in each iteration.

    Votes are made anew in each iteration. With one layer the result is that of routing in turn.
    """
    states: list[Capsules | None] = [capsules, *[None] * len(layers)]
    traces: dict[str, list[RoutingTrace]] = {layer.name: [] for layer in layers}
    for iteration in range(iterations):
        before, states = states, [capsules]
        for number, layer in enumerate(layers):
            parents, traced = layer(
                (states if iteration == 0 else before)[number],
                trace=trace,
                coupling_records=coupling_records,
                start=before[number + 1],
                config=layer.routing.model_copy(update={"iterations": 1}),
            )
            states.append(parents)
            if traced is not None:
                traces[layer.name].append(traced)
    last = states[-1]
    assert last is not None
    return last, {name: following(traced) for name, traced in traces.items() if traced}
