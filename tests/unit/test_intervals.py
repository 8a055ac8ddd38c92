"""Intervals against published values and the definition."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.intervals import interval, t_half_width, wilson


@pytest.mark.parametrize(
    ("right", "records", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_as_published(right: int, records: int, low: float, high: float) -> None:
    assert wilson(right / records, records) == pytest.approx((low, high), abs=5e-5)  # published to four digits


def test_wilson_is_symmetric_and_stays_within_0_and_1() -> None:
    low, high = wilson(0.9, 2000)
    assert wilson(0.1, 2000) == pytest.approx((1 - high, 1 - low), abs=1e-15)
    for records in (10, 100, 1000, 2000, 10_000, 26_032, 50_000):  # rounding may go either way
        assert (wilson(0.0, records)[0], wilson(1.0, records)[1]) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (11, 2.228), (31, 2.042)])
def test_t_is_as_tabulated(count: int, quantile: float) -> None:
    values = np.random.default_rng(count).random(count).tolist()
    expected = quantile * np.std(values, ddof=1) / np.sqrt(count)
    assert t_half_width(values) == pytest.approx(expected, rel=3e-4)  # tables have three decimals


def test_one_seed_and_several_have_each_their_rule() -> None:
    assert interval([0.9], 2000) == (0.9, *wilson(0.9, 2000), "wilson")
    several = interval([0.88, 0.9, 0.92], 2000)
    assert several.kind == "t"
    assert (several.mean, several.high - several.mean) == pytest.approx((0.9, t_half_width([0.88, 0.9, 0.92])))
    assert several.mean - several.low == pytest.approx(several.high - several.mean)


def test_a_share_is_never_below_0_or_above_1() -> None:
    assert interval([0.0, 0.5], 10)[1:3] == (0.0, 1.0)


def test_seeds_that_agree_have_no_width() -> None:
    assert interval([0.5, 0.5, 0.5], 10)[:3] == (0.5, 0.5, 0.5)


def test_t_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0.5, 0.01, (2000, 3)).tolist()
    covered = np.mean([low <= 0.5 <= high for _, low, high, _ in (interval(sample, 100) for sample in samples)])
    assert covered == pytest.approx(0.95, abs=0.02)  # four standard errors of 2,000 samples
