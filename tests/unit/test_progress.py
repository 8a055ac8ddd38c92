import math

import pytest

from trainer.launch.wire import ENV_TERMINAL
from trainer.progress import Progress, clock


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
