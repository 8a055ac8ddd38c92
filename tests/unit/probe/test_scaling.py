"""The model of a step on many ranks, against numbers by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from trainer.probe import scaling
from trainer.probe.scaling import GIGABIT, PUBLISHED_LINK, PUBLISHED_RANKS, Habits, Link, Work

WORK = Work(compute=0.3, backward=0.2, gradient_bytes=100e6)
LINK = Link(latency=1e-5, bytes_per_second=1e9, inner_bytes_per_second=1e10, ranks_per_machine=4)
BARE = Habits(share=1.0, spread=0.0, overlap=0.0)


def test_a_ring_by_hand() -> None:
    # 8 ranks: 14 messages of 10 µs, and 14/8 of 100 MB at 1 GB/s; 4 ranks of one machine: 6, and 6/4 at 10 GB/s
    assert scaling.allreduce_seconds(100e6, 8, LINK) == pytest.approx(14e-5 + 0.175)
    assert scaling.allreduce_seconds(100e6, 4, LINK) == pytest.approx(6e-5 + 0.015)
    assert scaling.allreduce_seconds(100e6, 8, LINK, share=0.5) == pytest.approx(14e-5 + 0.35)
    assert scaling.allreduce_seconds(100e6, 8, Link(0, math.inf, math.inf, fixed=0.005)) == 0.005


def test_one_rank_reduces_nothing_and_waits_for_nobody() -> None:
    assert scaling.allreduce_seconds(100e6, 1, LINK) == 0
    assert scaling.step_seconds(WORK, 1, LINK, Habits(share=0.5, spread=0.1)) == pytest.approx(WORK.compute)
    assert scaling.efficiency(WORK, 1, LINK, BARE) == 1


def test_what_the_backward_pass_hides() -> None:
    reduction = 14e-5 + 0.175
    assert scaling.step_seconds(WORK, 8, LINK, BARE) == pytest.approx(0.3 + reduction)
    half = Habits(overlap=0.5)  # 0.1 s of it is hidden
    assert scaling.step_seconds(WORK, 8, LINK, half) == pytest.approx(0.3 + reduction - 0.1)
    assert scaling.step_seconds(WORK, 8, LINK, Habits(overlap=1.0)) == 0.3  # all of it


def test_a_network_that_costs_nothing() -> None:
    free = Link(0.0, math.inf, math.inf)
    assert all(scaling.efficiency(WORK, ranks, free, BARE) == 1 for ranks in (2, 64, 512))


def test_the_slowest_of_several_ranks() -> None:
    """Expected maxima of 1, 2 and 3 standard normal numbers: 0, 1 / sqrt(pi), 3 / (2 sqrt(pi))."""
    for ranks, expected in ((1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))):
        assert scaling.slowest_of(ranks) == pytest.approx(expected, abs=1e-6)  # quadrature in steps of 5e-4
    spread = Habits(spread=0.1, overlap=1.0)
    step = scaling.step_seconds(WORK, 2, Link(0, math.inf, math.inf), spread)
    assert step == pytest.approx(0.3 * (1 + 0.1 / math.sqrt(math.pi)))


def test_more_ranks_and_slower_links_never_help() -> None:
    habits = Habits(share=0.8, spread=0.03, overlap=0.5)
    ranks, speeds = (1, 2, 4, 8, 16, 64, 512), (10.0, 25.0, 100.0, 200.0)
    links = [dataclasses.replace(LINK, bytes_per_second=speed * GIGABIT) for speed in speeds]
    rows = [[scaling.efficiency(WORK, count, link, habits) for count in ranks] for link in links]
    assert all(b <= a for row in rows for a, b in itertools.pairwise(row))
    assert all(slow <= fast for a, b in itertools.pairwise(rows) for slow, fast in zip(a, b, strict=True))
    assert {row[0] for row in rows} == {1.0}
    better = [
        scaling.efficiency(WORK, 512, LINK, each)
        for each in (Habits(0.5, 0.1, 0.0), Habits(1.0, 0.1, 0.0), Habits(1.0, 0.0, 0.0), Habits(1.0, 0.0, 0.5))
    ]
    assert better == sorted(better)
    assert better[0] < better[-1]


def test_calibration_comes_near_the_published_efficiencies() -> None:
    habits = scaling.calibrated()
    assert 0.3 < habits.share < 1  # not at an edge of the grid
    assert 0 < habits.spread < 0.1
    for each in scaling.PUBLISHED:
        told = scaling.efficiency(scaling.work_of(each), PUBLISHED_RANKS, PUBLISHED_LINK, habits)
        assert told == pytest.approx(each.efficiency, abs=0.01)  # published in whole percents
