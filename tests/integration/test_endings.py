"""Every run ends as promised: with the right exit code, a cause in one line, in bounded time, and resumable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    train,
)

pytestmark = pytest.mark.usefixtures("in_turn")
RANKS = [1, 2, 4]
GRACE = 10.0  # seconds from a stop request to the exit, as promised


@pytest.fixture(scope="module")
def whole(small_run: Path) -> list[float]:
    """The losses of a run that nobody interrupts."""
    return losses(small_run)


def assert_resumes(folder: Path, ranks: int, whole: list[float]) -> None:
    """The run goes on and has the curve of the uninterrupted one: to the bit on one rank."""
    train(folder, ranks=ranks, recipe="")
    assert [len(losses(folder)), last_step(folder)] == [STEPS, STEPS]
    if ranks == 1:
        assert losses(folder) == whole
    else:
        assert losses(folder) == pytest.approx(whole, rel=1e-5)  # float32 sums in another order
    assert not leftovers(folder)


def stop(run: Run, number: signal.Signals) -> tuple[int, str]:
    asked = time.monotonic()
    run.signal(number)
    code, output = run.finish()
    assert time.monotonic() - asked < GRACE
    return code, output


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_saves_and_exits_75(
    tmp_path: Path, ranks: int, number: signal.Signals, whole: list[float]
) -> None:
    run = start(tmp_path / "run", ranks=ranks)
    run.wait_for_step(5)
    code, output = stop(run, number)
    assert code == 75, output
    assert "stopped on request at step" in output
    assert checkpoints(run.folder) == [f"step-{last_step(run.folder):08d}"]
    assert_resumes(run.folder, ranks, whole)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("delay", [0.5, 1.5, 2.5])
def test_a_stop_request_during_start_up_exits_75(tmp_path: Path, ranks: int, delay: float) -> None:
    run = start(tmp_path / "run", ranks=ranks)
    time.sleep(delay)  # imports, building, tracing: whatever a machine of this speed is at
    code, output = stop(run, signal.SIGTERM)
    assert code == 75, output


PHASES = {
    "compilation": {"phase": "starting", "step": 0},
    "evaluation": {"phase": "evaluating", "step": 1},
    "saving": {"phase": "saving", "step": 1},
}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("during", PHASES)
def test_a_stop_request_in_each_phase(tmp_path: Path, ranks: int, during: str, whole: list[float]) -> None:
    reached = tmp_path / "reached"
    fault = {**PHASES[during], "rank": ranks - 1, "action": "touch", "file": str(reached), "seconds": 1}
    run = start(tmp_path / "run", ranks=ranks, fault=fault)
    run.wait_for(reached.exists)
    code, output = stop(run, signal.SIGTERM)
    # a run that is past its last step and asked to stop while it saves is done when it has saved
    assert code == (0 if during == "saving" else 75), output
    assert_resumes(run.folder, ranks, whole)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_a_checkpoint_is_being_written(
    tmp_path: Path, ranks: int, number: signal.Signals, whole: list[float]
) -> None:
    """Training goes on during a save: what is saved is the state at its beginning."""
    run = start(tmp_path / "run", ranks=ranks, slow_saves=1.5, fields={"checkpoint.every_steps": 4})
    run.wait_for_step(6)  # the save of step 4 takes 1.5 s, a step about 20 ms, 200 on a busy machine
    assert not checkpoints(run.folder)
    code, output = stop(run, number)
    assert code == (75 if number == signal.SIGTERM else -number), output
    assert_resumes(run.folder, ranks, whole)


def test_a_stop_request_during_xla_compilation(tmp_path: Path, whole: list[float]) -> None:
    reached = tmp_path / "reached"
    fault = {"phase": "starting", "step": 0, "action": "touch", "file": str(reached)}
    run = start(tmp_path / "run", fault=fault, fields={"model.routing.xla": "true", "model.stem.channels": "64"})
    run.wait_for(reached.exists)
    time.sleep(1)  # tracing and compilation take several seconds from here
    code, output = stop(run, signal.SIGTERM)
    assert code == 75, output


def test_a_closed_pipe_and_a_hang_up_do_not_lose_the_run(tmp_path: Path, whole: list[float]) -> None:
    """As by 'make train | head' and by a dropped connection."""
    reached = tmp_path / "reached"
    fault = {"phase": "input", "step": 10, "action": "touch", "file": str(reached), "seconds": 1}
    run = start(tmp_path / "run", fault=fault)
    assert run.process.stdout is not None
    run.process.stdout.readline()
    run.process.stdout.close()
    run.wait_for(reached.exists)
    run.signal(signal.SIGHUP)
    assert run.process.wait(GRACE) == 75
    assert_resumes(run.folder, 1, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_make_passes_signals_on(tmp_path: Path, number: signal.Signals, whole: list[float]) -> None:
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
    assert_resumes(run.folder, 1, whole)


@pytest.mark.parametrize("ranks", [None, 1, 2])
def test_a_second_interrupt_stops_at_once(tmp_path: Path, ranks: int | None, whole: list[float]) -> None:
    reached = tmp_path / "reached"
    fault = {"phase": "input", "step": 20, "action": "touch", "file": str(reached), "seconds": 100}
    run = start(tmp_path / "run", ranks=ranks, fault=fault, fields={"checkpoint.every_steps": 10})
    run.wait_for(reached.exists)
    run.signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.process.poll() is None
    asked = time.monotonic()
    run.signal(signal.SIGINT)
    code, output = run.finish()
    assert time.monotonic() - asked < 3
    assert code == 75, output
    assert_resumes(run.folder, ranks or 1, whole)


@pytest.mark.parametrize("ranks", RANKS)
def test_a_killed_rank_is_named_and_the_run_resumes(tmp_path: Path, ranks: int, whole: list[float]) -> None:
    fault = {"rank": ranks - 1, "phase": "input", "step": 25, "action": "kill"}
    run = start(tmp_path / "run", ranks=ranks, fault=fault, fields={"checkpoint.every_steps": 10})
    code, output = run.finish()
    assert code == 75, output
    assert f"rank {ranks - 1} (" in output
    assert "ended without a word" in output
    assert_resumes(run.folder, ranks, whole)


@pytest.mark.parametrize("ranks", RANKS)
def test_a_stopped_rank_is_named_in_bounded_time(tmp_path: Path, ranks: int, whole: list[float]) -> None:
    fault = {"rank": ranks - 1, "phase": "input", "step": 25, "action": "stop"}
    run = start(tmp_path / "run", ranks=ranks, fault=fault, fields={"checkpoint.every_steps": 10})
    run.wait_for_step(25)
    stopped = time.monotonic()
    code, output = run.finish()
    assert time.monotonic() - stopped < 4 + GRACE  # silence_seconds of the test
    assert code == 75, output
    assert f"rank {ranks - 1} (" in output
    assert "was silent for 4 s" in output
    assert_resumes(run.folder, ranks, whole)


@pytest.mark.parametrize("ranks", RANKS)
def test_a_sleeping_rank_is_named_in_bounded_time(tmp_path: Path, ranks: int, whole: list[float]) -> None:
    fault = {"rank": ranks - 1, "phase": "input", "step": 25, "action": "sleep", "seconds": 600}
    run = start(tmp_path / "run", ranks=ranks, fault=fault, fields={"checkpoint.every_steps": 10})
    run.wait_for_step(25)
    asleep = time.monotonic()
    code, output = run.finish()
    assert time.monotonic() - asleep < 6 + GRACE  # hang_seconds of the test
    assert code == 75, output
    assert "no progress for 6 s because of rank" in output
    named = output.split("because of")[1].splitlines()[0]
    assert f"rank {ranks - 1} (" in named
    assert named.count("rank ") == 1
    assert_resumes(run.folder, ranks, whole)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_supervisor_takes_its_ranks_with_it(tmp_path: Path, ranks: int, whole: list[float]) -> None:
    run = start(tmp_path / "run", ranks=ranks, fields={"checkpoint.every_steps": 10, "train.epochs": 20})
    run.wait_for_step(15)
    run.signal(signal.SIGKILL)
    run.finish()
    # a resume that starts at once must get the lock that the ranks still hold, and continue the same curve
    train(run.folder, ranks=ranks, recipe="", fields={"train.epochs": 1})
    steps = [record["step"] for record in records(run.folder)]
    assert steps == list(range(1, 79))
    assert losses(run.folder)[:STEPS] == pytest.approx(whole, rel=0 if ranks == 1 else 1e-5)
