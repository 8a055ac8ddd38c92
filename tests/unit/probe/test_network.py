"""Fits of measured reductions, what they predict, and the links that are imposed."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from trainer.errors import ConfigError
from trainer.probe import allreduce, link, network
from trainer.probe.network import Measured, Sample

SIZES = [2**power for power in range(10, 27, 2)]


def measured(rate: str, fixed: float, speed: float, noise: float = 0.0) -> Measured:
    random = np.random.default_rng(0)
    times = [(fixed + size / speed) * random.uniform(1 - noise, 1 + noise) for size in SIZES]
    samples = (Sample(size, took, took, took) for size, took in zip(SIZES, times, strict=True))
    return Measured(2, rate, 5, tuple(samples))


def test_a_fit_finds_the_line_that_made_the_times() -> None:
    line = measured("", 3e-3, 250e6).line
    assert (line.fixed, line.bytes_per_second) == (pytest.approx(3e-3), pytest.approx(250e6))
    assert line.worst < 1e-9  # rounding
    noisy = measured("", 3e-3, 250e6, noise=0.1).line
    assert noisy.fixed == pytest.approx(3e-3, rel=0.1)  # as far as the noise
    assert noisy.bytes_per_second == pytest.approx(250e6, rel=0.1)
    assert 0.01 < noisy.worst < 0.2


def test_a_fit_of_noise_has_no_negative_latency() -> None:
    line = network.fit([Sample(1000, 1e-7, 0, 0), Sample(10**6, 1e-3, 0, 0)])
    assert line.fixed == 0
    assert 0 < line.bytes_per_second < math.inf


def test_another_rate_is_predicted_with_the_same_latency_and_share() -> None:
    fitted, other = measured("200mbit", 3e-3, 11e6), measured("400mbit", 3e-3, 22e6)
    assert network.errors(fitted, other) == pytest.approx([0.0] * len(SIZES), abs=1e-9)  # rounding
    slower = measured("400mbit", 3e-3, 11e6)  # the link got no faster: told half of what it takes
    assert network.errors(fitted, slower)[-1] == pytest.approx(-0.5, abs=0.01)  # but for its latency
    assert "off by" in network.error_line(fitted, slower)
    few = [Measured(2, each.rate, 5, each.samples[:4]) for each in (fitted, slower)]
    assert "1 MiB on" not in network.error_line(*few)


def test_what_is_written_is_read_again() -> None:
    runs = [measured("200mbit", 3e-3, 11e6), measured("", 1e-3, 1e9)]
    assert network.from_json(json.loads(json.dumps(network.as_json(runs)))) == runs
    with pytest.raises(KeyError):
        network.from_json({})


def test_a_table_fits_a_terminal_also_for_a_slow_link() -> None:
    table = network.table(measured("10mbit", 30.0, 6e5))
    for line in table:
        assert len(line) <= 80
    rows = [line.split() for line in table[2:-2]]
    assert all(len(row) == 6 for row in rows)  # columns do not touch: size, unit, ms, low, to, high


def test_messages_that_take_a_slow_link_too_long_are_left_out() -> None:
    assert allreduce.sizes_for(2, []) == list(allreduce.SIZES)
    # 100 Mbit/s, 12.5 MB/s: two ranks send a message each, so that 4 MiB takes 0.7 s and 16 MiB 2.7 s
    assert max(allreduce.sizes_for(2, ["1gbit", "100mbit"])) == 4 * 2**20
    assert len(allreduce.sizes_for(8, ["1kbit"])) == allreduce.LEAST_SIZES


def test_rates() -> None:
    assert link.bytes_per_second("200mbit") == 25e6
    assert link.bytes_per_second("1.5gbit") == 187.5e6
    for wrong in ("200", "fast", "0mbit", "-1mbit", "200mbit; true"):
        with pytest.raises(ConfigError, match="give a number and kbit, mbit or gbit"):
            link.bytes_per_second(wrong)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == "tc" else tool)
    with pytest.raises(ConfigError, match="--rate needs tc"):
        link.check()
