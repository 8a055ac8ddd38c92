from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.errors import CheckpointError
from trainer.output import ledger
from trainer.output.ledger import Attempt, End, Ledger, Move, next_move

LOST = "rank 1 (job-worker-1, pid 77) ended without a word at training, step 12"
FULL = "disk full"


def history(*ends: tuple[int, str, bool, int] | None) -> list[Attempt]:
    """Attempts by (code, cause, stopped, step of the newest checkpoint at the end); None: killed without an end."""
    attempts, step = [], -1
    for number, end in enumerate(ends, 1):
        attempts.append(Attempt(number, "job", step, 0.0, 0.0, End(*end, 0.0) if end else None))
        step = end[3] if end else step
    return attempts


@pytest.mark.parametrize("code", [0, 2, 3])
def test_what_trying_again_does_not_change_is_final(code: int) -> None:
    assert next_move(history((75, LOST, False, 5), (code, "", False, 5))) == Move(False, code)


def test_the_same_failure_three_times_at_the_same_checkpoint_ends_the_run_and_says_so() -> None:
    other = LOST.replace("77", "78").replace("worker-1", "worker-3").replace("step 12", "step 14")
    tries = [(75, LOST, False, 5), (75, other, False, 5), (75, LOST, False, 5), (75, other, False, 5)]
    assert next_move(history(*tries[:3])).retry  # the first of them began before the checkpoint
    move = next_move(history(*tries))
    assert (move.retry, move.code) == (False, 1)
    assert move.why == f"gave up: 3 attempts ended the same way from the checkpoint of step 5: {other}"


def test_a_new_checkpoint_resets_the_count() -> None:
    assert next_move(history(*[(1, FULL, False, step) for step in range(20)])).retry
    assert next_move(history((1, FULL, False, 5), (1, FULL, False, 5), (1, FULL, False, 5), (1, FULL, False, 6))).retry


def test_preemptions_never_count() -> None:
    assert next_move(history(*[(75, "stopped on request", True, -1)] * 20)).retry
    between = [(75, LOST, False, -1), (75, "stopped on request", True, -1)] * 2
    assert next_move(history(*between)).retry
    assert not next_move(history(*between, (75, LOST, False, -1))).retry


def test_failures_that_differ_are_tried_longer_and_not_for_ever() -> None:
    causes = [(75, LOST, False, -1), (1, FULL, False, -1), (75, "other", False, -1), (1, "more", False, -1)]
    mixed = [
        (code, cause + "abcde"[at // 2 % 5], stop, step) for at, (code, cause, stop, step) in enumerate(causes * 2)
    ]
    assert next_move(history(*mixed)).retry
    assert not next_move(history(*mixed, (1, "last", False, -1))).retry


def test_three_that_were_killed_without_an_end_are_the_same_failure() -> None:
    assert next_move(history(None, None)).retry
    assert not next_move(history(None, None, None)).retry


def test_attempts_are_kept_at_the_output(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    begun = first.begin("a")
    assert (begun.generation, begun.step) == (1, -1)
    first.beat()
    (tmp_path / "checkpoints" / "step-00000012").mkdir(parents=True)
    first.end(75, LOST, stopped=False)
    assert Ledger(tmp_path).begin("b").generation == 2
    [one, two] = Ledger(tmp_path).attempts()
    assert one.end is not None
    assert (one.end.code, one.end.cause, one.end.step) == (75, LOST, 12)
    assert (two.job, two.step, two.end) == ("b", 12, None)


def test_how_the_last_attempt_that_is_over_ended(tmp_path: Path) -> None:
    job = Ledger(tmp_path)
    job.begin("a")
    assert job.before() is None
    job.end(75, LOST, stopped=False)
    for _ in range(2):  # between two attempts, and in the second
        end = job.before()
        assert end is not None
        assert (end.code, end.cause) == (75, LOST)
        job = Ledger(tmp_path)
        job.begin("a")
    end = job.before()  # the third, after one without an end
    assert end is not None
    assert end.cause == ledger.KILLED


def test_another_job_is_refused_while_one_lives_and_its_own_next_pod_is_not(tmp_path: Path) -> None:
    Ledger(tmp_path).begin("a")
    with pytest.raises(CheckpointError, match=r"a trains there \(attempt 1, .* s ago\)"):
        Ledger(tmp_path).begin("b")
    assert Ledger(tmp_path).begin("a").generation == 2


def test_a_job_that_has_not_been_heard_of_for_long_does_not_keep_others_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Ledger(tmp_path)
    dead.begin("a")
    place = tmp_path / "attempts" / "000001.begin.json"
    begun = json.loads(place.read_text())
    place.write_text(json.dumps({**begun, "began": begun["began"] - ledger.LEASE_SECONDS - 1}))
    assert Ledger(tmp_path).begin("b").generation == 2
    place.write_text(place.read_text())
    dead.beat()  # it was only slow
    with pytest.raises(CheckpointError, match="a trains there"):
        Ledger(tmp_path).begin("c")


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    Ledger(tmp_path).begin("a")
    (tmp_path / "attempts" / "000001.begin.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"000001.begin.json: not a record"):
        Ledger(tmp_path).begin("a")
