import io
import math

import pytest

from trainer.launch.wire import ENV_TERMINAL
from trainer.progress import Progress, Tally, clock


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.4, "0:59"), (61, "1:01"), (3661, "1:01:01"), (math.nan, "-:--")]
)
def test_times_read_as_people_write_them(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def show(progress: Progress) -> None:
    progress.show(12, 0.15, {"loss": 0.12345, "accuracy": 0.5}, 1234.5, 61)


def test_one_live_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(ENV_TERMINAL, "80")
    progress = Progress(1248, 5.0, quiet=False)
    show(progress)
    show(progress)
    progress.end_line()
    lines = capsys.readouterr().out.split("\r")
    assert lines[0] == ""
    assert [len(line.rstrip("\n")) for line in lines[1:]] == [79, 79]
    assert lines[1].startswith("step 12/1248  epoch 0.15  loss 0.1235  accuracy 0.5000")


def test_plain_lines_elsewhere_and_nothing_from_other_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENV_TERMINAL, "0")
    progress = Progress(1248, 5.0, quiet=False)
    assert progress.due
    show(progress)
    assert not progress.due
    out = capsys.readouterr().out
    assert out.endswith("ETA 1:01\n")
    assert "\r" not in out
    quiet = Progress(1248, 5.0, quiet=True)
    assert not quiet.due
    show(quiet)
    quiet.text("evaluating")
    assert capsys.readouterr().out == ""


def test_a_tally_tells_rate_and_eta_on_its_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ENV_TERMINAL, raising=False)
    times = iter([100.0, 104.0, 120.0])
    monkeypatch.setattr("trainer.progress.time.monotonic", lambda: next(times))
    stream = io.StringIO()
    tally = Tally("images", patient=True, stream=stream)
    for done in (10, 30, 90):
        tally(done, 130)
    first, second = stream.getvalue().splitlines()
    assert first == "30 of 130 images (23%)  5 images/s  ETA 0:20"
    assert second == "90 of 130 images (69%)  4 images/s  ETA 0:10"
    assert capsys.readouterr().out == ""


def test_a_live_line_that_is_cleared_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENV_TERMINAL, "40")
    progress = Progress(0, 5.0, quiet=False)
    progress.clear()
    progress.text("working")
    progress.clear()
    assert capsys.readouterr().out == f"\r{'working':<39}\r{'':39}\r"
