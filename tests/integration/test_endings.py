"""Every run ends as promised: with the right exit code, a cause in one line, in bounded time, and resumable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    SMALL,
    STEPS,
    Run,
    checkpoints,
    last_step,
    leftovers,
    losses,
    records,
    start,
)

pytestmark = pytest.mark.usefixtures("in_turn")
GRACE = 10.0  # seconds from a stop request to the exit, as promised
SAVED_EVERY = 4  # steps
SILENCE, HANG = 4, 6  # seconds, where a rank fails; as a busy machine is slow, no other run is watched so closely


def saved(folder: Path) -> int:
    """The step that an attempt goes on from."""
    found = checkpoints(folder)
    return int(found[-1].removeprefix("step-")) if found else 0


def attempt(
    folder: Path, ranks: int | None, slow_saves: float = 0, silence: float = 30, hang: float = 600, **fault: Any
) -> tuple[Run, Callable[[], bool]]:
    """The run's beginning, or what goes on with it; the last rank fails. Also says whether it has yet."""
    reached = folder.parent / "reached"
    reached.unlink(missing_ok=True)
    run = start(
        folder,
        ranks=ranks,
        recipe="" if folder.exists() else "sabour2017",
        fault={"rank": (ranks or 1) - 1, "file": str(reached), **fault},
        slow_saves=slow_saves,
        fields={
            "checkpoint.every_steps": SAVED_EVERY,
            "watchdog.silence_seconds": silence,
            "watchdog.hang_seconds": hang,
        },
    )
    return run, reached.exists


def stop(run: Run, number: signal.Signals) -> tuple[int, str]:
    asked = time.monotonic()
    run.signal(number)
    code, output = run.finish()
    assert time.monotonic() - asked < GRACE
    return code, output


def stopped(
    folder: Path, ranks: int, number: signal.Signals, phase: str, step: int, slow_saves: float = 0
) -> tuple[int, str]:
    """An attempt that gets the signal while its last rank is where it is to be."""
    run, there = attempt(folder, ranks, slow_saves, phase=phase, step=step, action="sleep", seconds=1)
    run.wait_for(there)
    return stop(run, number)


def failed(folder: Path, ranks: int, within: float, **fault: Any) -> str:
    """What an attempt says in which a rank fails after a save."""
    step = saved(folder) + SAVED_EVERY + 1
    run, there = attempt(folder, ranks, silence=SILENCE, hang=HANG, phase="input", step=step, **fault)
    run.wait_for(there)
    since = time.monotonic()
    code, output = run.finish()
    assert time.monotonic() - since < within
    assert code == 75, output
    return output


def asked_while_compiling(folder: Path, ranks: int) -> None:
    code, output = stopped(folder, ranks, signal.SIGTERM, "starting", 0)
    assert code == 75, output


def asked(folder: Path, ranks: int, number: signal.Signals) -> None:
    code, output = stopped(folder, ranks, number, "input", saved(folder) + 3)
    assert code == 75, output
    assert "stopped on request at step" in output
    assert saved(folder) == last_step(folder)


def terminated(folder: Path, ranks: int) -> None:
    asked(folder, ranks, signal.SIGTERM)


def interrupted(folder: Path, ranks: int) -> None:
    asked(folder, ranks, signal.SIGINT)


def interrupted_twice(folder: Path, ranks: int | None) -> None:
    run, there = attempt(
        folder, ranks, phase="input", step=saved(folder) + SAVED_EVERY + 1, action="sleep", seconds=100
    )
    run.wait_for(there)
    run.signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.process.poll() is None
    again = time.monotonic()
    run.signal(signal.SIGINT)
    code, output = run.finish()
    assert time.monotonic() - again < 3
    assert code == 75, output


def during_a_save(folder: Path) -> int:
    """The step at which a rank is while a slow save goes on."""
    return (saved(folder) // SAVED_EVERY + 1) * SAVED_EVERY + 2


def terminated_while_saving(folder: Path, ranks: int) -> None:
    """Training goes on during a save: what is saved is the state at its beginning."""
    before = saved(folder)
    run, there = attempt(folder, ranks, 1.5, phase="input", step=during_a_save(folder), action="sleep", seconds=0.2)
    run.wait_for(there)
    assert saved(folder) == before
    code, output = stop(run, signal.SIGTERM)
    assert code == 75, output
    assert saved(folder) == last_step(folder)


def killed_while_saving(folder: Path, ranks: int) -> None:
    """The supervisor takes its ranks with it: what starts at once gets their lock. Half a checkpoint is none."""
    before = saved(folder)
    code, output = stopped(folder, ranks, signal.SIGKILL, "input", during_a_save(folder), slow_saves=30)
    assert code == -signal.SIGKILL, output
    assert saved(folder) == before


def rank_killed(folder: Path, ranks: int) -> None:
    output = failed(folder, ranks, GRACE, action="kill")
    assert f"rank {ranks - 1} (" in output
    assert "ended without a word" in output


def rank_stopped(folder: Path, ranks: int) -> None:
    output = failed(folder, ranks, SILENCE + GRACE, action="stop")
    assert f"rank {ranks - 1} (" in output
    assert f"was silent for {SILENCE} s" in output


def rank_asleep(folder: Path, ranks: int) -> None:
    output = failed(folder, ranks, HANG + GRACE, action="sleep", seconds=600)
    assert f"no progress for {HANG} s because of rank" in output
    named = output.split("because of")[1].splitlines()[0]
    assert f"rank {ranks - 1} (" in named
    assert named.count("rank ") == 1


def asked_while_evaluating(folder: Path, ranks: int) -> None:
    code, output = stopped(folder, ranks, signal.SIGTERM, "evaluating", 1)
    assert code == 75, output


def asked_in_the_last_save(folder: Path, ranks: int) -> None:
    """Past its last step a run is done when it has saved."""
    code, output = stopped(folder, ranks, signal.SIGTERM, "saving", 1)
    assert code == 0, output


ENDINGS = [
    asked_while_compiling,
    terminated,
    interrupted,
    terminated_while_saving,
    killed_while_saving,
    interrupted_twice,
    rank_killed,
    rank_stopped,
    rank_asleep,
    asked_while_evaluating,
    asked_in_the_last_save,
]
OF_ONE = [
    interrupted,
    killed_while_saving,
    interrupted_twice,
    rank_killed,
    rank_stopped,
    asked_while_evaluating,
    asked_in_the_last_save,
]
OF_FOUR = [terminated, rank_killed, asked_in_the_last_save]  # where a fourth could tell


@pytest.mark.parametrize(("ranks", "endings"), [(1, OF_ONE), (2, ENDINGS), (4, OF_FOUR)], ids=["1", "2", "4"])
def test_a_run_that_ends_in_every_way_has_the_curve_of_one_that_nobody_ended(
    tmp_path: Path, ranks: int, endings: list[Callable[[Path, int], None]], small_run: Path
) -> None:
    """One run: each attempt ends in another way, and the next goes on from there."""
    folder = tmp_path / "run"
    for ending in endings:
        ending(folder, ranks)
    assert [record["step"] for record in records(folder)] == list(range(1, STEPS + 1))
    if ranks == 1:
        assert losses(folder) == losses(small_run)
    else:
        assert losses(folder) == pytest.approx(losses(small_run), rel=1e-5)  # float32 sums in another order
    assert not leftovers(folder)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("delay", [0.5, 1.5, 2.5])
def test_a_stop_request_during_start_up_exits_75(tmp_path: Path, ranks: int, delay: float) -> None:
    run = start(tmp_path / "run", ranks=ranks)
    time.sleep(delay)  # imports, building, tracing: whatever a machine of this speed is at
    code, output = stop(run, signal.SIGTERM)
    assert code == 75, output


def test_a_second_interrupt_stops_at_once_without_a_supervisor(tmp_path: Path) -> None:
    interrupted_twice(tmp_path / "run", None)
    assert checkpoints(tmp_path / "run")


def test_a_stop_request_during_xla_compilation(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    fault = {"phase": "starting", "step": 0, "action": "sleep", "seconds": 0, "file": str(reached)}
    run = start(tmp_path / "run", fault=fault, fields={"model.routing.xla": "true", "model.stem.channels": "64"})
    run.wait_for(reached.exists)
    time.sleep(1)  # tracing and compilation take several seconds from here
    code, output = stop(run, signal.SIGTERM)
    assert code == 75, output


def test_a_closed_pipe_and_a_hang_up_do_not_lose_the_run(tmp_path: Path) -> None:
    """As by 'make train | head' and by a dropped connection."""
    folder = tmp_path / "run"
    run, there = attempt(folder, 1, phase="input", step=10, action="sleep", seconds=1)
    assert run.process.stdout is not None
    run.process.stdout.readline()
    run.process.stdout.close()
    run.wait_for(there)
    run.signal(signal.SIGHUP)
    assert run.process.wait(GRACE) == 75
    assert saved(folder) == last_step(folder) >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_make_passes_signals_on(tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    if Path(sys.prefix) != root / ".venv":
        pytest.skip("make would set up another environment than the one that runs this test")
    fields = " ".join(f"--{name}={value}" for name, value in SMALL.items())
    command = ["make", "-C", str(root), "train", "RECIPE=sabour2017", f"RUN={tmp_path / 'run'}", f"ARGS={fields}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    run = Run(tmp_path / "run", process, time.monotonic())
    run.wait_for_step(5)
    os.killpg(process.pid, number)  # a terminal sends Ctrl-C to all of the foreground
    _, output = run.finish(GRACE)
    assert "stopped on request at step" in output
    assert "Error 75" in output
    assert f"to go on: make train RUN={run.folder}" in output
    assert saved(run.folder) == last_step(run.folder)
