import sys
import textwrap
from pathlib import Path

import pytest

from trainer.launch.supervisor import launch
from trainer.launch.wire import LineBuffer, encode

pytestmark = pytest.mark.usefixtures("signals_restored")


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
