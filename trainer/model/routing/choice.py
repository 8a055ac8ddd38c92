"""Which implementation of its routing a layer gets, from its sizes and the device, without TensorFlow.

Axes: B batch, I children, N positions, T transforms, I = N x T, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from trainer.config import RoutingConfig
from trainer.devices import on_gpu
from trainer.model.routing import LayerSizes, Transform

if TYPE_CHECKING:
    import tensorflow as tf

BLOCK_BYTES = 3 * 2**20
"""Votes, or couplings, of one block in float32. What is made in one pass over a block should stay in a core's
second-level cache; smaller blocks cost more in starting operations. Measured with 1 to 12 MB: 2 to 4 MB were best."""
GPU_BLOCK_BYTES = 128 * 2**20
"""The same on a GPU, where a block must be enough work for all of it. On an H100 blocks of 32 MiB to 2 GiB took the
same time but for noise, and of 3 MiB some four times that (docs/gpu.md)."""
MOST_BLOCKS = 256
"""Blocks are larger where there would be more: a graph of 2,048 blocks took more than three and a half minutes to
build, one of 256 less than half a minute, and its step was as fast."""
MOST_PRODUCTS = 65_535
"""Of matrices in one batched multiplication: kernels for GPUs number them in 16 bits."""
UNKNOWN_BATCH = 64
"""Stands for a batch whose size is not known when the graph is built."""


ONE_PASS = ("self_routing", "self_attention")
"""Algorithms that have no iterations: their couplings are made once."""
STREAMED = ("dynamic", "inverted", *ONE_PASS)
"""Algorithms that can do without stored votes."""

Keep = Literal["nothing", "couplings", "all"]
"""What of each child is held from the forward to the backward pass; all: couplings and their logits' gradients."""


class Choice(NamedTuple):
    """How a layer routes. Blocks are ``transforms`` x ``positions`` children."""

    implementation: Literal["stored", "streamed"]
    transforms: int
    positions: int
    keep: Keep
    why: str


def choose(config: RoutingConfig, sizes: LayerSizes, batch: int | None, *, gpu: bool = False) -> Choice:
    """The configured implementation, or by 'auto' the faster one that keeps to ``memory_bytes``.

    Votes that are stored exist three times over in a training step (themselves, their gradient, and a product in
    between).
    """
    records = batch or UNKNOWN_BATCH
    positions = sizes.children // sizes.transforms
    votes = 4 * records * sizes.children * sizes.parents * sizes.pose
    times = 1 if config.algorithm in ONE_PASS else config.iterations - 1
    couplings = 4 * times * records * sizes.children * sizes.parents
    keep: Keep = "nothing" if couplings > config.memory_bytes else "couplings"
    if 2 * couplings <= config.memory_bytes:
        keep = "all"
    block = _block(config, sizes, records, config.block_bytes or (GPU_BLOCK_BYTES if gpu else BLOCK_BYTES))
    asked = config.implementation != "auto"
    implementation: Literal["stored", "streamed"]
    if config.implementation != "auto":
        implementation, why = config.implementation, "as configured"
    elif config.needs_votes:
        implementation, why = "stored", f"{config.needs_votes}; all votes are {_size(votes)}"
    elif not config.xla and 3 * votes <= config.memory_bytes:
        implementation, why = "stored", "blocks pay where they are compiled, and model.routing.xla is off"
    elif gpu and _makes_votes(config, positions) and 3 * votes <= config.memory_bytes:
        implementation, why = "stored", f"all votes are {_size(votes)}, and with them a GPU is faster"
    elif block == (sizes.transforms, positions):
        implementation, why = "stored", f"all votes are {_size(votes)}"
    else:
        implementation, why = "streamed", f"votes would be {_size(votes)}"
    if implementation == "streamed":
        blocks = math.ceil(sizes.transforms / block[0]) * math.ceil(positions / block[1])
        why += (
            f", made again in {blocks} blocks of {block[0] * block[1]} children; couplings of {_size(couplings)} are "
        )
        why += {"all": "kept, as are their gradients", "couplings": "kept", "nothing": "made again"}[keep]
        why += "" if keep == "all" else f" (memory_bytes {_size(config.memory_bytes)})"
    elif config.algorithm == "em":
        keep = "all" if not config.xla or votes * _times_held(config) <= config.memory_bytes else "nothing"
        if keep == "nothing":
            why += "; what iterations make of them is made again for their gradient "
            why += f"(memory_bytes {_size(config.memory_bytes)})"
    elif not asked and 3 * votes > config.memory_bytes:
        why += f", three times over more than memory_bytes {_size(config.memory_bytes)}"
    return Choice(implementation, *block, keep, why)


def choose_for(config: RoutingConfig, poses_BIP: tf.Tensor, transform: Transform) -> Choice:
    """For children and a transform as ``route`` has them."""
    batch, children, pose_in = poses_BIP.shape
    sizes = LayerSizes(children, transform.transforms, transform.parents, pose_in, transform.pose)
    return choose(config, sizes, batch, gpu=on_gpu())


def _block(config: RoutingConfig, sizes: LayerSizes, records: int, votes: int) -> tuple[int, int]:
    """Transforms and positions of a block: by its votes, or by its couplings where none are made, as positions share
    transforms and lengths of votes are not asked for.

    A block is one batched multiplication, of a matrix for each transform, or for each transform and record.

    Args:
        votes: bytes of them.
    """
    positions = sizes.children // sizes.transforms
    child = 4 * records * sizes.parents * (sizes.pose if _makes_votes(config, positions) else 1)
    if positions == 1:
        return _fitting(votes // child, sizes.transforms, MOST_BLOCKS, MOST_PRODUCTS), 1
    block_positions = _fitting(votes // child, positions, max(1, MOST_BLOCKS // sizes.transforms), positions)
    if block_positions < positions:
        return 1, block_positions
    fitting = votes // (child * positions)
    transforms = _fitting(fitting, sizes.transforms, MOST_BLOCKS, max(1, MOST_PRODUCTS // records))
    return transforms, block_positions


def _times_held(config: RoutingConfig) -> int:
    """How many times over votes of EM routing are held for its gradient: 13.3 times was seen of three iterations."""
    return 4 * config.iterations + 1


def _makes_votes(config: RoutingConfig, positions: int) -> bool:
    """Whether blocks make the votes of their children."""
    return positions == 1 or config.by_cosine


def _fitting(fitting: int, count: int, blocks: int, largest: int) -> int:
    """How many make one of at most so many blocks, where so many fit, evened out over those that are needed.

    Never more than ``largest``, for which there may be more blocks.
    """
    most = min(largest, max(1, min(count, fitting), math.ceil(count / blocks)))
    return math.ceil(count / math.ceil(count / most))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
