"""A stop that lands where exceptions are lost."""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from tests.unit.export.test_folder import of, run_of
from trainer.cli import main
from trainer.config import RunConfig
from trainer.errors import EXIT_INTERRUPTED
from trainer.export import keras_model
from trainer.stopping import STOP_SIGNALS, StopRequest

pytestmark = pytest.mark.usefixtures("signals_restored")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Dying:
    """Does something when it is collected, where Python prints exceptions and goes on."""

    def __init__(self, last: Callable[[], object]) -> None:
        self.last = last

    def __del__(self) -> None:
        self.last()


def collected(last: Callable[[], object]) -> None:
    dying = Dying(last)
    del dying
    gc.collect()


def swallowed(last: Callable[[], object]) -> None:
    with contextlib.suppress(BaseException):
        last()


def replaced(last: Callable[[], object]) -> None:
    try:
        last()
    except BaseException:
        raise TypeError("could not be deserialized properly") from None


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_interrupts(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.check()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert stop.asked


def test_what_a_bare_except_swallows_is_noted() -> None:
    stop = StopRequest()
    swallowed(interrupt)
    with pytest.raises(KeyboardInterrupt):
        stop.check()


def test_what_is_lost_in_a_collection_is_noted_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    stop = StopRequest()
    collected(interrupt)
    with pytest.raises(KeyboardInterrupt):
        stop.check()
    assert capfd.readouterr().err == ""


def test_other_losses_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    StopRequest()
    collected(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_after_the_last_check_nothing_interrupts() -> None:
    stop = StopRequest()
    stop.check_last()
    interrupt()
    assert stop.asked


def test_the_last_check_is_one() -> None:
    stop = StopRequest()
    swallowed(interrupt)
    with pytest.raises(KeyboardInterrupt):
        stop.check_last()


@pytest.mark.parametrize("lost", [collected, swallowed, replaced])
def test_an_export_that_is_stopped_is_not_there(
    lost: Callable[[Callable[[], object]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    build = keras_model.build

    def interrupted(config: RunConfig, net: keras.Model) -> keras.Model:
        lost(interrupt)
        return build(config, net)

    monkeypatch.setattr(keras_model, "build", interrupted)
    run = run_of(of(), tmp_path / "run")
    assert main(["export", str(run), str(tmp_path / "model")]) == EXIT_INTERRUPTED
    assert capfd.readouterr().err == f"capsnet: {tmp_path / 'model'}: stopped, nothing was written\n"
    assert list(tmp_path.iterdir()) == [run]
