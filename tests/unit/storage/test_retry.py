"""How long is waited between attempts, and when it is given up."""

from __future__ import annotations

import pytest

from trainer.config import StorageConfig
from trainer.errors import StorageError
from trainer.storage.retry import PassingError, Patience, persistently

POLICY = StorageConfig(deadline_seconds=300, first_wait_seconds=0.5, longest_wait_seconds=30)


@pytest.mark.parametrize(("failures", "longest"), [(0, 0.5), (1, 1), (2, 2), (5, 16), (6, 30), (7, 30), (10**6, 30)])
def test_pauses_double_up_to_the_longest(failures: int, longest: float) -> None:
    patience = Patience(POLICY, "gs://b/a")
    assert patience.pause(failures, 1.0) == longest
    assert 0 < patience.pause(failures, 0.0) < patience.pause(failures, 0.5) < longest


def test_a_wait_that_the_server_asks_for_counts_against_the_deadline() -> None:
    with pytest.raises(StorageError, match=r"^gs://b/a: answered 429; gave up after 1 attempts.*deadline_seconds"):
        Patience(POLICY, "gs://b/a").wait(PassingError("answered 429", wait_seconds=301))


def test_progress_starts_the_counting_again() -> None:
    policy = StorageConfig(deadline_seconds=1, first_wait_seconds=0.001, longest_wait_seconds=0.001)
    patience = Patience(policy, "gs://b/a")
    patience.wait(PassingError("reset"))
    patience.progress()
    with pytest.raises(StorageError, match="gave up after 1 attempts"):
        patience.wait(PassingError("answered 503", wait_seconds=2))


def test_only_what_may_pass_is_tried_again() -> None:
    policy = StorageConfig(first_wait_seconds=0.001, longest_wait_seconds=0.001)
    outcomes: list[Exception | str] = [PassingError("reset"), PassingError("cut"), "done", ValueError("not this")]

    def attempt() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert persistently(policy, "gs://b/a", attempt) == "done"
    with pytest.raises(ValueError, match="not this"):
        persistently(policy, "gs://b/a", attempt)
