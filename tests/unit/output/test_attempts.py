from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.errors import CheckpointError, InterruptedRun
from trainer.launch import wire
from trainer.launch.verdicts import Ending
from trainer.output import attempts
from trainer.output.ledger import Ledger

pytestmark = pytest.mark.usefixtures("signals_restored")
LOST = Ending(75, "rank 1 ended without a word", step=5)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSES_SECONDS", (0.0,))
    for name in (wire.ENV_GENERATION, wire.ENV_JOB):
        monkeypatch.setenv(name, "")


def script(*endings: Ending | Exception) -> Callable[[list[int]], Ending]:
    """An attempt that ends as told, one after the other."""
    left = list(endings)

    def attempt(_requests: list[int]) -> Ending:
        ending = left.pop(0)
        if isinstance(ending, Exception):
            raise ending
        return ending

    return attempt


def test_it_is_tried_again_until_it_is_done(tmp_path: Path) -> None:
    ending = attempts.run(Ledger(tmp_path), "a", script(LOST, InterruptedRun("no answer from worker-1"), Ending(0)))
    assert ending.code == 0
    ends = [attempt.end for attempt in Ledger(tmp_path).attempts()]
    assert [(end.code, end.cause) for end in ends if end] == [
        (75, LOST.cause),
        (75, "no answer from worker-1"),
        (0, ""),
    ]
    assert os.environ[wire.ENV_GENERATION] == "3"


@pytest.mark.parametrize("code", [2, 3])
def test_what_is_final_is_not_tried_again(tmp_path: Path, code: int) -> None:
    ending = attempts.run(Ledger(tmp_path), "a", script(Ending(code, "why")))
    assert (ending.code, ending.cause) == (code, "why")


def test_the_same_failure_again_and_again_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ending = attempts.run(Ledger(tmp_path), "a", script(LOST, LOST, LOST))
    assert ending.code == 1
    assert "gave up: 3 attempts ended the same way before the first checkpoint" in ending.cause
    assert ending.cause in capfd.readouterr().err


def test_twenty_preemptions_do_not_end_it(tmp_path: Path) -> None:
    preempted = Ending(75, "stopped on request", stopped=True, step=5)
    assert attempts.run(Ledger(tmp_path), "a", script(*[preempted] * 20, Ending(0))).code == 0
    assert len(Ledger(tmp_path).attempts()) == 21


def test_a_stop_of_the_launcher_is_not_followed_by_another_attempt(tmp_path: Path) -> None:
    def attempt(requests: list[int]) -> Ending:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests == [signal.SIGTERM]
        return Ending(75, "stopped on request", stopped=True)

    ending = attempts.run(Ledger(tmp_path), "a", attempt)
    assert (ending.code, ending.stopped) == (75, True)
    assert len(Ledger(tmp_path).attempts()) == 1


def test_a_stop_between_two_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSES_SECONDS", (60.0,))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert attempts.run(Ledger(tmp_path), "a", script(LOST)).code == 75


def test_it_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.01)
    seen = threading.Event()

    def attempt(_requests: list[int]) -> Ending:
        while not seen.wait(0.01):
            [one] = Ledger(tmp_path).attempts()
            if one.alive > one.began:
                seen.set()
        return Ending(0)

    assert attempts.run(Ledger(tmp_path), "a", attempt).code == 0


def test_a_disk_that_fails_now_and_then_does_not_end_the_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    beat, failed = Ledger.beat, threading.Event()

    def once(ledger: Ledger) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.ESTALE, "Stale file handle")
        beat(ledger)

    monkeypatch.setattr(Ledger, "beat", once)
    test_it_gives_signs_of_life(tmp_path, monkeypatch)
    assert "the ledger of attempts: [Errno 116] Stale file handle" in capfd.readouterr().err


def test_a_full_disk_leaves_a_run_that_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "attempts"))

    monkeypatch.setattr(Ledger, "end", full)
    with pytest.raises(InterruptedRun, match=r"attempts: not written \(No space left on device\); make room"):
        attempts.run(Ledger(tmp_path), "a", script(Ending(75, "the disk is full")))


def test_an_output_in_use_is_refused_before_anything_runs(tmp_path: Path) -> None:
    Ledger(tmp_path).begin("b")
    with pytest.raises(CheckpointError, match="b trains there"):
        attempts.run(Ledger(tmp_path), "a", script())
