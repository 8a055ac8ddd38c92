"""Where the time of a step of two ranks goes: a real ring, and a real run of training."""

from __future__ import annotations

from trainer.probe import studies
from trainer.probe.records import OK
from trainer.probe.run import one


def test_the_parts_of_a_step_of_one_rank_and_of_two() -> None:
    study = studies.load("ranks")
    alone, both = (one(study, f"convolutions/{place}/seed0") for place in ("centre", "ranks, strong=2"))
    for result in (alone, both):
        assert result.outcome == OK, result.why
        assert result.numbers["images_per_second"] > 0
        assert 0 <= result.numbers["input_wait"] < 1
    assert "reduction_seconds" not in alone.numbers
    assert alone.numbers["exposed_seconds"] == 0
    assert both.numbers["reduction_seconds"] > 0
    assert both.numbers["multiply_adds"] == alone.numbers["multiply_adds"] / 2
    assert both.numbers["gradient_bytes"] == 4 * both.numbers["parameters"]
