"""What a data-parallel step takes at N ranks, from what it takes at one: an alpha-beta model with overlap.

    T(b, N) = L + 2 (N - 1) alpha + 2 (N - 1) / N * b / (share * beta)          ring allreduce of b bytes
    step(N) = compute * (1 + spread * e(N)) + max(0, T(b, N) - overlap * backward)

alpha is the latency of one message and beta the speed of the slowest link of the ring, of which ``share`` is had; L is
what Horovod takes to agree on a tensor. Every rank waits for the slowest: e(N) is the expected maximum of N standard
normal numbers, and ``spread`` the deviation of a rank's compute over its mean. Gradients appear all along the backward
pass, of which ``overlap`` can hide their reduction. A ring within one machine runs at the speed of its own links.

Left out: congestion by others, input that is late, the sizes of single tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

GIGABIT = 1e9 / 8
"""In bytes."""


@dataclass(frozen=True)
class Work:
    """Of one rank: seconds of a step without reduction, of them those of the backward pass, bytes of its gradients."""

    compute: float
    backward: float
    gradient_bytes: float


@dataclass(frozen=True)
class Link:
    """``latency`` of a message in s, bytes/s between machines and within one, ranks of a machine, ``fixed`` L in s."""

    latency: float
    bytes_per_second: float
    inner_bytes_per_second: float = 100e9
    ranks_per_machine: int = 8
    fixed: float = 0.0


@dataclass(frozen=True)
class Habits:
    """What the model cannot know: share of a link's speed that is had, spread of ranks, hidden share of backward."""

    share: float = 1.0
    spread: float = 0.0
    overlap: float = 1.0


def allreduce_seconds(size: float, ranks: int, link: Link, share: float = 1.0) -> float:
    """T(b, N); 0 for one rank."""
    if ranks == 1:
        return 0.0
    speed = link.inner_bytes_per_second if ranks <= link.ranks_per_machine else link.bytes_per_second
    return link.fixed + 2 * (ranks - 1) * link.latency + 2 * (ranks - 1) / ranks * size / (share * speed)


def step_seconds(work: Work, ranks: int, link: Link, habits: Habits) -> float:
    compute = work.compute * (1 + habits.spread * slowest_of(ranks))
    reduction = allreduce_seconds(work.gradient_bytes, ranks, link, habits.share)
    return compute + max(0.0, reduction - habits.overlap * work.backward)


def efficiency(work: Work, ranks: int, link: Link, habits: Habits) -> float:
    """Images/s of N ranks over N times those of one."""
    return work.compute / step_seconds(work, ranks, link, habits)


@cache
def slowest_of(ranks: int) -> float:
    """e(N): the expected maximum of N standard normal numbers, by quadrature of x dF(x)^N."""
    xs = np.linspace(-10, 10, 40_001)
    below = 0.5 * (1 + np.array([math.erf(x / math.sqrt(2)) for x in xs]))
    return float(np.sum((xs[1:] + xs[:-1]) / 2 * np.diff(below**ranks)))


@dataclass(frozen=True)
class Published:
    """An efficiency that others measured. ``images_per_second``: of one GPU, at ``batch``."""

    name: str
    parameters: float
    images_per_second: float
    batch: int
    efficiency: float


PUBLISHED = (
    Published("Inception V3", 23.8e6, 142.0, 64, 0.90),
    Published("ResNet-101", 44.5e6, 130.0, 64, 0.90),
    Published("VGG-16", 138.4e6, 154.0, 64, 0.68),
)
"""At 512 GPUs: 128 machines of 4 Pascal GPUs, 25 Gbit/s (Sergeev and Del Balso 2018, figure 6).

Images/s of one P100 are assumptions: those of TensorFlow's published benchmarks for Inception V3 and VGG-16, and one
between ResNet-50's and ResNet-152's for ResNet-101. Two thirds of a step are taken for its backward pass.
"""
PUBLISHED_RANKS = 512
PUBLISHED_LINK = Link(latency=0.0, bytes_per_second=25 * GIGABIT, inner_bytes_per_second=10e9, ranks_per_machine=4)
BACKWARD = 2 / 3


def work_of(published: Published) -> Work:
    seconds = published.batch / published.images_per_second
    return Work(seconds, BACKWARD * seconds, 4 * published.parameters)


@cache
def calibrated() -> Habits:
    """``share`` and ``spread`` that come nearest to ``PUBLISHED``, by least squares over a grid. A calibration: three
    numbers fix two."""

    def error(habits: Habits) -> float:
        return sum(
            (efficiency(work_of(each), PUBLISHED_RANKS, PUBLISHED_LINK, habits) - each.efficiency) ** 2
            for each in PUBLISHED
        )

    grid = [
        Habits(share=share / 100, spread=spread / 1000) for share in range(30, 101, 2) for spread in range(0, 101, 2)
    ]
    return min(grid, key=error)
