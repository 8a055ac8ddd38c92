import sys
import textwrap
from pathlib import Path

import pytest

from trainer.launch.supervisor import Rank, Verdict, final_code, launch, suspects
from trainer.launch.wire import LineBuffer, Mark, encode

pytestmark = pytest.mark.usefixtures("signals_restored")


def rank(number: int, phase: str, step: int, waits: bool = False) -> Rank:
    return Rank(number, "host", 1, None, 0.0, 0.0, Mark(phase, step, waits))


def numbers(ranks: list[Rank]) -> list[int]:
    return [found.number for found in suspects(ranks)]


def test_the_rank_outside_the_collective_is_the_suspect() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "input", 7), rank(2, "training", 7, True)]) == [1]


def test_the_rank_furthest_behind_is_the_suspect() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "training", 6, True)]) == [1]
    assert numbers([rank(0, "evaluating", 7), rank(1, "input", 6)]) == [1]


def test_ranks_in_the_same_collective_are_all_named() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "training", 7, True)]) == [0, 1]


@pytest.mark.parametrize(
    ("verdicts", "stopping", "ended", "code", "cause"),
    [
        ([(0, 0, ""), (1, 0, "")], False, "", 0, ""),
        ([(1, 2, "bad record"), (0, 75, "lost")], False, "", 2, "bad record"),
        ([(0, 75, "lost"), (1, 2, "bad record")], False, "rank 1 died", 2, "bad record"),
        ([(1, 3, "short"), (0, 3, "long")], False, "", 3, "long"),
        ([(0, 75, "stopped"), (1, 75, "also")], True, "", 75, "stopped"),
        ([(0, 0, "")], False, "rank 1 ended without a word", 75, "rank 1 ended without a word"),
        ([(0, 0, "")], False, "", 75, "the ranks ended without saying why"),
        ([], True, "", 75, "stopped on request"),
        ([(0, 0, ""), (1, 0, "")], True, "stopped at once", 0, ""),
        ([(0, 1, "ValueError")], False, "", 1, "ValueError"),
    ],
)
def test_the_first_cause_is_the_verdict(
    verdicts: list[tuple[int, int, str]], stopping: bool, ended: str, code: int, cause: str
) -> None:
    assert final_code([Verdict(*verdict) for verdict in verdicts], 2, stopping, ended) == (code, cause)


def test_messages_arrive_whole_however_they_are_cut() -> None:
    data = encode("hello", rank=1) + encode("verdict", code=0)
    for cut in range(len(data)):
        buffer = LineBuffer()
        messages = buffer.feed(data[:cut]) + buffer.feed(data[cut:])
        assert [message["kind"] for message in messages] == ["hello", "verdict"]


PROGRAM = """
import os, signal, sys, time
from trainer.launch.lifeline import Lifeline
lifeline = Lifeline(0).open()
lifeline.mark("input", 1)
{body}
"""


def run(tmp_path: Path, body: str) -> int:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(body=textwrap.dedent(body)))
    return launch(1, [sys.executable, str(program)])


@pytest.mark.parametrize("code", [0, 2, 3, 75])
def test_the_verdict_counts_and_not_the_exit_code_of_the_process(tmp_path: Path, code: int) -> None:
    assert run(tmp_path, f"lifeline.verdict({code}, 'why'); sys.exit(9)") == code


def test_a_process_that_leaves_without_a_word_is_interrupted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") == 75
    assert "rank 0 (" in capfd.readouterr().err


def test_a_process_that_makes_no_progress_is_ended_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "lifeline.limits(30, 1.5, 30, 30)\ntime.sleep(60)") == 75
    error = capfd.readouterr().err
    assert "no progress for 1.5 s because of rank 0 (" in error
    assert "input, step 1" in error


def test_a_stop_request_that_is_not_followed_ends_the_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = "lifeline.limits(30, 30, 30, 0.5)\nos.kill(os.getpid(), signal.SIGUSR1)\ntime.sleep(60)"
    assert run(tmp_path, body) == 75
    assert "not followed in 0.5 s" in capfd.readouterr().err


def test_a_stranger_on_the_port_is_ignored(tmp_path: Path) -> None:
    body = """
    import socket
    host, port = os.environ["CAPSNET_SUPERVISOR"].split(":")
    for noise in (b"GET / HTTP/1.1\\r\\n\\r\\n", b'{"kind": "verdict", "code": 2, "message": "forged"}\\n', b"1\\n"):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(noise)
    time.sleep(0.5)
    lifeline.verdict(0)
    """
    assert run(tmp_path, body) == 0
