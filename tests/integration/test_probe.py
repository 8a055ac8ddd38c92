"""Cells in processes of their own: what they run into, and what a kill costs."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Bucket
from tests.integration.harness import PATIENCE
from trainer.errors import ConfigError, InterruptedRun
from trainer.probe import collect, run
from trainer.probe.records import VERSION, Records
from trainer.probe.study import Arm, Budget, Study, Thresholds, over

SMALL = {
    "model.stem.channels": "8",
    "model.stem.kernel": "5",
    "model.stem.strides": "2",
    "model.primary.types": "4",
    "model.primary.kernel": "5",
    "model.decoder.hidden": "16",
    "model.routing.xla": "false",
    "train.threads": "1",
}
STUDY = Study(
    name="small",
    about="for tests",
    measure="cost",
    recipe="sabour2017",
    fields={**SMALL, "train.global_batch_size": "16"},
    budget=Budget(seconds=PATIENCE, memory_mib=1500),
    arms=(Arm("dynamic"),),
    axes=(over("batch", "train.global_batch_size", ("8", "16", "32768")),),
    thresholds=Thresholds(),
)


def never() -> bool:
    return False


def said(lines: list[str]) -> str:
    return "\n".join(lines)


def test_machines_share_cells_that_run_out_of_memory_are_collected_and_measured_again(
    bucket: Bucket, tmp_path: Path
) -> None:
    uri, there = f"{bucket.uri}/probes/small", tmp_path / "there"
    lines: list[str] = []
    for shard, cells in (((0, 2), 2), ((1, 2), 1)):
        before = len(lines)
        run.run(STUDY, uri, shard, lines.append, never)
        assert len([line for line in lines[before:] if line.startswith("[")]) == cells
    found = {cell.value: result for cell, result in collect.results(uri, print)[1]}
    outcomes = {value: result.outcome for value, result in found.items()}
    assert outcomes == {"": "ok", "8": "ok", "32768": "out of memory"}, said(lines)
    numbers = found[""].numbers
    assert {"step_seconds", "forward_seconds", "held_mib", "floor_seconds", "entropy"} <= set(numbers)
    assert 0 < numbers["forward_seconds"] < numbers["step_seconds"] * 3  # a busy machine
    assert found["32768"].numbers["peak_mib"] > 1500
    assert "the limit is 1,500" in found["32768"].why

    collect.write(uri, there, print)
    Records(there).claim(STUDY)
    collect.unpack(there, print)
    slow = {**numbers, "reference_seconds": 100 * numbers["reference_seconds"]}
    Records(there).finish(dataclasses.replace(found[""], numbers=slow))
    lines.clear()
    run.run(STUDY, there, (0, 1), lines.append, never, noisy_again=True)
    # all else is known
    assert [line.split("] ")[1] for line in lines if line.startswith("[")] == [found[""].cell]
    again = {cell.value: result for cell, result in collect.results(there, print)[1]}
    assert again.pop("").numbers["reference_seconds"] < slow["reference_seconds"] / 2
    assert again == {value: result for value, result in found.items() if value}


def test_a_learning_cell_is_a_real_run(tmp_path: Path) -> None:
    study = Study(
        name="learn",
        about="for tests",
        measure="learning",
        recipe="sabour2017",
        fields={**SMALL, "train.epochs": "0.5", "log.observe_every_steps": "10", "log.every_steps": "5"},
        budget=Budget(seconds=PATIENCE, memory_mib=4000),
        arms=(Arm("dynamic"), Arm("diverges", {"optimizer.learning_rate": "1e30"})),
        axes=(over("iterations", "model.routing.iterations", ("3",)),),
    )
    run.run(study, tmp_path, (0, 1), print, never)
    _, found = collect.results(tmp_path, print)
    good, bad = (result for _, result in found)
    assert good.outcome == "ok", good
    assert good.numbers["accuracy"] > 0.2
    assert 0 < good.numbers["entropy_last"] == good.numbers["class_capsules/entropy_last"] <= 1
    assert bad.outcome == "not finite", bad


def probe(output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer", "probe", "run", "smoke", "--axis", "children", "--output", str(output)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_cell(process: subprocess.Popen[str]) -> psutil.Process:
    """The process of the cell that is under way, which has started one itself."""
    assert process.stdout is not None
    while not process.stdout.readline().startswith("["):
        assert process.poll() is None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            if "trainer.probe.cost" in child.cmdline() and child.children():
                return child
        time.sleep(0.02)
    raise AssertionError("no cell was started")


def told(page: Path) -> str:
    """What a page says; names within its pictures are drawn anew each time."""
    return re.sub(r'src="[^"]*"', "", page.read_text())


def ended_in_its_first_cell(output: Path, number: signal.Signals) -> tuple[int, str]:
    """Its exit code, and what it said; nothing that it had started outlives it."""
    process = probe(output)
    cell = wait_for_cell(process)
    started = [cell, *cell.children()]
    process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE)
    psutil.wait_procs(started, timeout=5)  # less than a cell takes
    assert not [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    return process.returncode, printed


def test_a_kill_costs_the_cell_in_flight_at_most(tmp_path: Path) -> None:
    code, printed = ended_in_its_first_cell(tmp_path, signal.SIGINT)
    assert code == 75, printed
    known = Records(tmp_path).known(print)
    assert (len(known.started), len(known.results)) == (0, 0)  # a stop takes the start back
    code, printed = ended_in_its_first_cell(tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL, printed
    known = Records(tmp_path).known(print)
    assert (len(known.started), len(known.results)) == (1, 0)
    last = probe(tmp_path)
    output, _ = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, output
    known = Records(tmp_path).known(print)
    assert len(known.results) == 4
    assert sorted(known.started.values()) == [1, 1, 1, 2]
    words = [sys.executable, "-m", "trainer", "probe"]
    for action in ("report", "collect"):
        assert subprocess.run([*words, action, str(tmp_path)]).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["ok"] * 4
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 0  # pictures are data, whole
    collected = tmp_path / "collected"
    assert subprocess.run([*words, "collect", str(tmp_path), "--to", str(collected)]).returncode == 0
    assert subprocess.run([*words, "report", str(collected)]).returncode == 0
    assert told(collected / "report.html") == told(tmp_path / "report.html")


def test_records_that_are_damaged_or_of_another_version_are_named_and_the_others_kept(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.claim(STUDY)
    folder = tmp_path / "records"
    (folder / "one.result.json").write_text('{"cell": "a", "outc')
    (folder / "two.result.json").write_text('{"version": 0, "cell": "b"}')
    (folder / "three.started-1.json").write_text(f'{{"version": {VERSION}, "cell": "c"}}')
    lines: list[str] = []
    known = records.known(lines.append)
    assert (known.started, known.results) == ({"c": 1}, {})
    assert "one.result.json: cut short" in said(lines)
    assert "two.result.json: a record of version 0" in said(lines)


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    little = Study(**{**vars(STUDY), "budget": Budget(60, 50)})
    with pytest.raises(ConfigError, match="a cell may have 50 MiB, and the program itself takes"):
        run.run(little, tmp_path / "a", (0, 1), print, never)
    Records(tmp_path / "b").claim(STUDY)
    with pytest.raises(ConfigError, match="holds study small, declared otherwise"):
        run.run(little, tmp_path / "b", (0, 1), print, never)
    with pytest.raises(InterruptedRun):
        run.run(STUDY, tmp_path / "b", (0, 1), print, lambda: True)
    with pytest.raises(ConfigError, match="no study there"):
        collect.results(tmp_path, print)


def test_a_cell_alone_is_measured_again_and_an_unknown_one_is_a_line() -> None:
    words = [sys.executable, "-m", "trainer", "probe", "cell", "smoke"]
    again = subprocess.run([*words, "convolutions/centre/seed0"], capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    told = {line.split()[0]: float(line.split()[1]) for line in again.stdout.splitlines()[1:]}
    assert 0 < told["floor_seconds"] < told["step_seconds"] < told["seconds"]
    unknown = subprocess.run([*words, "none"], capture_output=True, text=True, timeout=PATIENCE)
    assert unknown.returncode == 2
    assert "has no cell none; 'capsnet probe show smoke --cells' lists them" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1
