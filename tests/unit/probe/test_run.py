"""What a run does with the records of its cells; the cells themselves measure nothing here."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.probe.test_study import STUDY
from trainer import cli
from trainer.errors import EXIT_INTERRUPTED, ConfigError, InterruptedRun, StorageError
from trainer.probe import collect, records, run
from trainer.probe.records import ERROR, KILLED, MEMORY, OK, REVISION, Records, Result, hardware
from trainer.probe.study import Cell, Study, cells, over

SMALL = dataclasses.replace(STUDY, seeds=(0,), arms=STUDY.arms[:1])
KEYS = [cell.key for cell in cells(SMALL)]
CENTRE, LAST = KEYS[:2]


def found(cell: Cell, outcome: str = OK) -> Result:
    return Result(cell.key, outcome, hardware=hardware())


class Measured:
    """Stands in for the measuring of cells: each ends as ``of`` says, and is noted in ``keys``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.of: Callable[[Cell], Result | None] = found
        monkeypatch.setattr(run, "measure", self._measure)
        monkeypatch.setattr(run, "check_footprint", lambda _study, _stopped: None)

    def _measure(self, _study: Study, cell: Cell, _stopped: object) -> Result | None:
        self.keys.append(cell.key)
        return self.of(cell)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch)


def go(output: Path, study: Study = SMALL, shard: tuple[int, int] = (0, 1), **options: bool) -> list[str]:
    """What was said."""
    said: list[str] = []
    run.run(study, output, shard, said.append, lambda: False, **options)
    return said


def outcomes(output: Path) -> dict[str, str]:
    return {cell.key: result.outcome for cell, result in collect.results(output, print)[1]}


def stops(_cell: Cell) -> None:
    return None


def interrupts(_cell: Cell) -> Result:
    raise KeyboardInterrupt


def loses_its_bucket(_cell: Cell) -> Result:
    raise StorageError("no connection")


@pytest.mark.parametrize("of", [stops, interrupts, loses_its_bucket])
def test_a_cell_that_is_interrupted_any_number_of_times_is_measured_then(
    of: Callable[[Cell], Result | None], tmp_path: Path, measured: Measured
) -> None:
    measured.of = of
    for _ in range(3):
        with pytest.raises((InterruptedRun, KeyboardInterrupt, StorageError)):
            go(tmp_path)
        assert Records(tmp_path).known(print).started == {}
    measured.of = found
    go(tmp_path)
    assert outcomes(tmp_path) == dict.fromkeys(KEYS, OK)


def test_a_stop_says_how_to_go_on(tmp_path: Path, measured: Measured) -> None:
    measured.of = stops
    with pytest.raises(InterruptedRun, match=f"the same command with --output {re.escape(str(tmp_path))} goes on"):
        go(tmp_path)


def test_what_failed_is_measured_again_where_that_is_asked_for(tmp_path: Path, measured: Measured) -> None:
    measured.of = lambda cell: found(cell, ERROR if cell.key == LAST else OK)
    go(tmp_path)
    there = Records(tmp_path)
    there.forget([cell for cell in cells(SMALL) if cell.key == CENTRE])
    for times in (1, 2):
        there.start(cells(SMALL)[0], times, {})
    said = go(tmp_path)
    assert f"{CENTRE}: killed: started 2 times, and neither time did a result come; --failed-again" in "\n".join(said)
    assert (outcomes(tmp_path)[CENTRE], outcomes(tmp_path)[LAST]) == (KILLED, ERROR)
    measured.keys, measured.of = [], found
    go(tmp_path)
    assert measured.keys == []
    assert "2 cells were killed or ended in an error: once more" in go(tmp_path, failed_again=True)
    assert measured.keys == [CENTRE, LAST]
    assert outcomes(tmp_path) == dict.fromkeys(KEYS, OK)


def test_cells_of_another_machine_are_not_timed_again_on_this_one(tmp_path: Path, measured: Measured) -> None:
    measured.of = lambda cell: dataclasses.replace(found(cell), hardware={"cpu": "another"})
    go(tmp_path)
    with pytest.raises(ConfigError, match="of another machine"):
        go(tmp_path, noisy_again=True)
    assert any(line.startswith("cells there were measured on another, this is ") for line in go(tmp_path))


def test_an_output_is_claimed_only_by_what_can_run(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(_study: Study, _stopped: object) -> None:
        raise ConfigError("raise --memory")

    with monkeypatch.context() as patched:
        patched.setattr(run, "check_footprint", too_small)
        with pytest.raises(ConfigError, match="raise --memory"):
            go(tmp_path, dataclasses.replace(SMALL, budget=dataclasses.replace(SMALL.budget, memory_mib=50)))
    go(tmp_path)
    with pytest.raises(ConfigError, match="holds study try, declared otherwise"):
        go(tmp_path, dataclasses.replace(SMALL, budget=dataclasses.replace(SMALL.budget, memory_mib=50)))


def test_axes_may_be_asked_for_one_after_the_other(tmp_path: Path, measured: Measured) -> None:
    more = over("children", "model.primary.types", ("4", "16"))
    whole = dataclasses.replace(SMALL, axes=(*SMALL.axes, more))
    go(tmp_path)
    go(tmp_path, whole)
    assert measured.keys == [*KEYS, "a/children=4/seed0"]
    go(tmp_path)  # no cell of the other axis is lost to the page
    assert outcomes(tmp_path) == dict.fromkeys(measured.keys, OK)


def test_shards_skip_what_lies_beyond_a_limit_that_another_one_met(tmp_path: Path, measured: Measured) -> None:
    measured.of = lambda cell: found(cell, MEMORY if cell.value == "40" else OK)
    values = [cell.value for cell in cells(SMALL)]
    assert (values.index("40") % 3, values.index("80") % 3) == (0, 1)
    go(tmp_path, shard=(0, 3))
    go(tmp_path, shard=(1, 3))
    assert measured.keys == [CENTRE, "a/parents=40/seed0"]


def test_each_record_is_read_once_and_each_damaged_one_told_once(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path)
    there = Records(tmp_path)
    there.forget(cells(SMALL)[1:])
    (tmp_path / "records" / "odd.result.json").write_text("{")
    read: list[str] = []

    def counted(place: Path) -> bytes:
        read.append(place.name)
        return place.read_bytes()

    def by_another_machine(cell: Cell) -> Result:
        if len(measured.keys) == len(KEYS) + 1:
            Records(tmp_path).finish(found(cells(SMALL)[-1]))
        return found(cell)

    monkeypatch.setattr(records, "read_bytes", counted)
    measured.of = by_another_machine
    said = go(tmp_path)
    records_read = [name for name in read if name != records.STUDY]
    assert len(records_read) == len(set(records_read)) == 4  # the centre's two, the odd one, the other machine's
    assert sum("odd.result.json" in line for line in said) == 1
    assert measured.keys[len(KEYS) :] == KEYS[1:-1]


def test_a_record_that_another_machine_takes_back_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Records(tmp_path)
    there.claim(SMALL)
    there.start(cells(SMALL)[0], 1, {})

    def gone(place: Path) -> bytes:
        place.unlink()
        return place.read_bytes()

    monkeypatch.setattr(records, "read_bytes", gone)
    assert Records(tmp_path).known(print) == records.Known({}, {})


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_heard_while_storage_does_not_answer(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never_answers(_place: object) -> None:
        timer.start()
        time.sleep(20)
        raise StorageError("gave up")

    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    monkeypatch.setattr(records, "listing", never_answers)
    began = time.monotonic()
    assert cli.main(["probe", "run", "smoke", "--output", "gs://none/probes"]) == EXIT_INTERRUPTED
    assert time.monotonic() - began < 10
    assert "stopped; the same command with --output gs://none/probes goes on" in capsys.readouterr().err


def test_results_of_an_image_say_the_commit_that_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REVISION, "0123abc")
    monkeypatch.setattr(records, "__file__", str(tmp_path / "trainer" / "probe" / "records.py"))
    assert records.software()["commit"] == "0123abc"
    monkeypatch.setenv(REVISION, "")
    assert "commit" not in records.software()
    root = Path(__file__).parents[3]
    assert f"ENV {REVISION}=$REVISION\n" in (root / "docker" / "Dockerfile").read_text()
    made = subprocess.run(["make", "--dry-run", "image"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert '--build-arg REVISION="$(git rev-parse HEAD' in made
