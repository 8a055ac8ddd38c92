"""``capsnet compare`` as a person would use it: small networks on the embedded data, stopped, gone on with, grown."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tests.integration.harness import PATIENCE, SMALL, STEPS, last_step, leftovers, records

ARMS = "dynamic,uniform,wild:optimizer.learning_rate=1e30"


def words(output: Path, *arguments: str, fields: dict[str, str] | None = None) -> list[str]:
    given = {**SMALL, **(fields or {})}
    typed = [f"--{name}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "trainer", "compare", "sabour2017", "--output", str(output), *arguments, *typed]


def start(command: list[str]) -> subprocess.Popen[str]:
    # as typed at a shell: what it says to type next is another thing behind make, which may have started these tests
    environment = {name: value for name, value in os.environ.items() if name != "CAPSNET_FRONT"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], within: float = PATIENCE) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        raise AssertionError(f"still running after {within:g} s") from None
    return process.returncode, said


def compare(command: list[str]) -> tuple[int, str]:
    return finish(start(command))


def wait_for(process: subprocess.Popen[str], condition: Any, within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def results(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return tree


def states(folder: Path) -> dict[str, str]:
    return {run["run"]: run["state"] for run in results(folder)["runs"]}


def made_at(folder: Path) -> dict[str, int]:
    """When each run was last written to."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/metrics.jsonl")}


def test_arms_are_trained_scored_tabulated_and_drawn_and_the_comparison_grows(tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    code, said = compare(words(folder, "--routing", ARMS, "--seeds", "1"))
    assert code == 0, said
    assert states(folder) == {"dynamic-seed0": "done", "uniform-seed0": "done", "wild-seed0": "diverged"}
    found = {arm["name"]: arm for arm in results(folder)["arms"]}
    for name in ("dynamic", "uniform"):
        run = folder / "runs" / f"{name}-seed0"
        test = records(run, "test")[-1]
        assert test["step"] == STEPS
        assert found[name]["scores"]["test"]["mean"] == test["accuracy"]
        assert found[name]["scores"]["test"]["kind"] == "wilson"
        assert found[name]["scores"]["affine"]["mean"] < test["accuracy"]
        assert found[name]["peak_memory_mib"] > 100
        assert list(run.glob("events.out.*"))
    assert (found["dynamic"]["speed_ratio"], found["wild"]["scores"]) == (1.0, {})
    assert found["dynamic"]["parameters"] == found["uniform"]["parameters"]
    table = said[said.index("\narm ") :]
    assert "diverged" in table
    assert "wild: optimizer.learning_rate 1e+30 (recipe: 0.001)" in table
    assert max(map(len, table.splitlines())) <= 80 + len(str(folder))  # the last line names the folder
    assert f"tensorboard --logdir {folder / 'runs'}" in said
    for name in ("accuracy.png", "cost.png"):
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
    assert len(list(csv.DictReader((folder / "results.csv").open()))) == 3
    assert (folder / "table.md").read_text().startswith("# Comparison of sabour2017")

    before = made_at(folder)
    code, said = compare([sys.executable, "-m", "trainer", "compare", "--output", str(folder), "--overlap"])
    assert code == 0, said
    assert before.items() <= made_at(folder).items(), "what was done was done again"
    assert states(folder)["dynamic-seed0-overlap"] == "done"
    assert states(folder)["wild-seed0-overlap"] == "diverged"
    config = json.loads((folder / "runs" / "dynamic-seed0-overlap" / "config.json").read_text())
    assert (config["data"]["overlap"]["enabled"], config["model"]["image_size"]) == (True, 36)
    with Image.open(folder / "scenes.png") as image:
        assert image.format == "PNG"

    code, said = compare(words(folder, "--dry-run", "--routing", "first", "--seeds", "2"))
    assert code == 0
    assert "10 of 16 runs to do, about " in said
    assert not (folder / "runs" / "first-seed0").exists()


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.cmdline()[1:4] == ["-m", "trainer", "train"]]


def test_a_comparison_goes_on_after_a_run_that_died_an_interrupt_and_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    first, second = folder / "runs" / "dynamic-seed0", folder / "runs" / "uniform-seed0"
    again = [sys.executable, "-m", "trainer", "compare", "--output", str(folder)]

    process = start(
        words(folder, "--routing", "dynamic,uniform", "--seeds", "1", fields={"checkpoint.every_steps": "4"})
    )
    wait_for(process, lambda: last_step(first) >= 8)
    [rank] = ranks_of(process)
    rank.kill()  # as by the kernel, out of memory
    code, said = compare(again)
    assert code == 2, said
    assert f"in use by another process (pid {process.pid})" in said
    code, said = finish(process)
    assert code == 1, said
    assert states(folder) == {"dynamic-seed0": "failed", "uniform-seed0": "done"}
    assert "ended without a word" in said
    assert "1 of 2 runs failed (dynamic-seed0)" in said
    done = made_at(folder)[second.name]

    for number, at_least in ((signal.SIGINT, 14), (signal.SIGKILL, 22)):
        process = start(again)
        wait_for(process, lambda least=at_least: last_step(first) >= least)  # type: ignore[misc]
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        code, said = finish(process)
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert not alive, "runs go on without their comparison"
        assert at_least <= last_step(first) < STEPS, "the run was not stopped"
        if number == signal.SIGINT:
            assert code == 75, said
            assert f"stopped with 1 of 2 runs done; to go on: capsnet compare --output {folder}" in said
            assert states(folder) == {"dynamic-seed0": "begun", "uniform-seed0": "done"}

    code, said = compare(again)
    assert code == 0, said
    assert set(states(folder).values()) == {"done"}
    assert made_at(folder)[second.name] == done
    assert [record["step"] for record in records(first)] == list(range(1, STEPS + 1))
    assert (first / "log.txt").read_text().count("resumed from") == 3
    assert not leftovers(folder)
