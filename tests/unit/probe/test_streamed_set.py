"""Settings of the study of data: what is refused, and that what is left out has a value."""

from __future__ import annotations

import pytest

from trainer.errors import ConfigError
from trainer.probe.streamed_set import DEFAULTS, checked


def test_what_is_left_out_has_its_default() -> None:
    assert checked({}) == DEFAULTS
    assert checked({"mbit": "inf", "latency_ms": "0"}) == {**DEFAULTS, "mbit": "inf", "latency_ms": "0"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("latency", "5", "probe.latency: no such setting; there are images, "),
        ("mbit", "0", "probe.mbit 0: give a number of at least 0.001"),
        ("mbit", "fast", "probe.mbit fast: give a number"),
        ("mbit", "nan", "probe.mbit nan: give a number"),
        ("latency_ms", "-1", "probe.latency_ms -1: give a number of at least 0"),
        ("shards", "0", "probe.shards 0: give 1 or more"),
        ("rounds", "1.5", "probe.rounds 1.5: give 1 or more"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checked({name: value})
