"""Which implementation of dynamic routing a layer gets, from its sizes alone: before TensorFlow is imported.

Axes: B batch, I children, N positions, T transforms, I = N x T, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from trainer.config import RoutingConfig
from trainer.model.routing import LayerSizes

BLOCK_BYTES = 3 * 2**20
"""Votes, or couplings, of one block in float32. What is made in one pass over a block should stay in a core's
second-level cache; smaller blocks cost more in starting operations. Measured with 1 to 12 MB: 2 to 4 MB were best."""
UNKNOWN_BATCH = 64
"""Stands for a batch whose size is not known when the graph is built."""


class Choice(NamedTuple):
    """How a layer routes. Blocks are ``transforms`` x ``positions`` children."""

    implementation: Literal["stored", "streamed"]
    transforms: int
    positions: int
    keep: bool  # couplings and their logits' gradients between passes, or made again
    why: str


def choose(config: RoutingConfig, sizes: LayerSizes, batch: int | None) -> Choice:
    """The configured implementation, or by 'auto' the faster one that keeps to ``memory_bytes``.

    Votes that are stored exist three times over in a training step (themselves, their gradient, and a product in
    between).
    """
    records = batch or UNKNOWN_BATCH
    positions = sizes.children // sizes.transforms
    votes = 4 * records * sizes.children * sizes.parents * sizes.pose
    kept = 8 * (config.iterations - 1) * records * sizes.children * sizes.parents
    keep = kept <= config.memory_bytes
    if positions == 1:
        block = (_fitting(4 * records * sizes.parents * sizes.pose, sizes.transforms), 1)
    else:
        coupling = 4 * records * sizes.parents
        block_positions = _fitting(coupling, positions)
        whole = block_positions == positions
        block = (_fitting(coupling * positions, sizes.transforms) if whole else 1, block_positions)
    asked = config.implementation != "auto"
    implementation: Literal["stored", "streamed"]
    if config.implementation != "auto":
        implementation, why = config.implementation, "as configured"
    elif config.agreement == "cosine":
        implementation, why = "stored", "agreement by cosine needs the lengths of the votes"
    elif not config.xla and 3 * votes <= config.memory_bytes:
        implementation, why = "stored", "blocks pay where they are compiled, and model.routing.xla is off"
    elif block == (sizes.transforms, positions):
        implementation, why = "stored", f"all votes are {_size(votes)}"
    else:
        implementation, why = "streamed", f"votes would be {_size(votes)}"
    if implementation == "streamed":
        blocks = math.ceil(sizes.transforms / block[0]) * math.ceil(positions / block[1])
        why += f", made again in {blocks} blocks of {block[0] * block[1]} children; couplings of {_size(kept)} are "
        why += "kept" if keep else f"made again (memory_bytes {_size(config.memory_bytes)})"
    elif not asked and 3 * votes > config.memory_bytes:
        why += f", three times over more than memory_bytes {_size(config.memory_bytes)}"
    return Choice(implementation, *block, keep, why)


def _fitting(each: int, count: int) -> int:
    """How many of so many bytes make a block, evened out over the blocks that are needed."""
    most = max(1, min(count, BLOCK_BYTES // each))
    return math.ceil(count / math.ceil(count / most))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
