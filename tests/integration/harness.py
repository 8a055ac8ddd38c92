"""Real runs for the tests: a small network on the embedded set, started as a person would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

FAULTS = Path(__file__).parent / "faults"

SMALL = {
    "model.stem.channels": "8",
    "model.stem.kernel": "5",
    "model.stem.strides": "2",
    "model.primary.types": "4",
    "model.primary.kernel": "5",
    "model.decoder.hidden": "16",
    "model.routing.xla": "false",  # its compilation would be most of a short run
    "train.epochs": "0.5",
    "train.threads": "1",
    "log.every_steps": "1",
    "log.observe_every_steps": "0",
}
OFTEN = {"checkpoint.every_steps": "7", "evaluate.every_epochs": "0.2", "log.every_steps": "3"}
STEPS = 39  # of half an epoch of 78
PATIENCE = 240.0  # seconds for what has no bound of its own, on a busy machine


@dataclass
class Run:
    """A run that was started; ``folder`` is its run directory."""

    folder: Path
    process: subprocess.Popen[str]
    began: float

    def finish(self, within: float = PATIENCE) -> tuple[int, str]:
        """Exit code, and everything it printed."""
        try:
            output, _ = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            tree = psutil.Process(self.process.pid)
            for process in [*tree.children(recursive=True), tree]:
                process.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"still running after {within:g} s:\n{output}") from None
        return self.process.returncode, output

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def rank_pids(self) -> list[int]:
        """Processes of the ranks, oldest first."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        ranks = [child for child in children if child.cmdline()[1:3] == ["-m", "trainer"]]
        return [child.pid for child in sorted(ranks, key=lambda child: child.create_time())]

    def wait_for(self, condition: Any, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert self.process.poll() is None, f"ended early:\n{self.process.communicate()[0]}"
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.02)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: last_step(self.folder) >= step)


def start(
    folder: Path,
    *arguments: str,
    ranks: int | None = 1,
    fault: dict[str, Any] | None = None,
    recipe: str = "sabour2017",
    fields: dict[str, Any] | None = None,
    small: bool = True,
    slow_saves: float = 0,
) -> Run:
    """``capsnet launch --ranks N train``, or ``capsnet train`` alone with ``ranks`` None."""
    launch = [] if ranks is None else ["launch", "--ranks", str(ranks)]
    values = {**(SMALL if small else {}), **(fields or {})}
    command = [sys.executable, "-m", "trainer", *launch, "train", *([recipe] if recipe else [])]
    command += ["--run", str(folder), *arguments, *(f"--{name}={value}" for name, value in values.items())]
    # as at a person's, where what is printed waits in a buffer
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if fault:
        environment["CAPSNET_TEST_FAULT"] = json.dumps({"rank": 0, **fault})
        environment["PYTHONPATH"] = str(FAULTS)
    if slow_saves:
        environment |= {"CAPSNET_TEST_SLOW_SAVES": str(slow_saves), "PYTHONPATH": str(FAULTS)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    return Run(folder, process, time.monotonic())


def train(folder: Path, *arguments: str, **options: Any) -> str:
    """A run that must reach its end; returns what it printed."""
    code, output = start(folder, *arguments, **options).finish()
    assert code == 0, output
    return output


def records(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in whole if record["kind"] == kind]


def last_step(folder: Path) -> int:
    found = records(folder)
    return found[-1]["step"] if found else 0


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder)]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def leftovers(folder: Path) -> list[Path]:
    """Files that a person could take for whole and that are not."""
    return [path for path in folder.rglob("*") if path.name.startswith((".writing-", ".tmp"))]
