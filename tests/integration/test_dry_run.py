"""What a dry run says is what the run then does, and it leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.harness import SMALL, STEPS
from tools import bench_memory

FIELDS = [f"--{name}={value}" for name, value in SMALL.items()]


def capsnet(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "trainer", *words], capture_output=True, text=True, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_it_says_what_the_run_says_and_writes_nothing(small_run: Path, tmp_path: Path) -> None:
    code, output, error = capsnet(tmp_path, "train", "sabour2017", *FIELDS, "--dry-run")
    assert code == 0, error
    lines = output.splitlines()
    log = (small_run / "log.txt").read_text()
    for beginning in ("data ", "tests ", "routing of "):
        [said] = [line for line in lines if line.startswith(beginning)]
        assert said in log
    [total] = [line.split()[1] for line in lines if line.startswith("  all ")]
    assert f"{total} parameters" in log
    counts = [int(line.split()[1].replace(",", "")) for line in lines if re.fullmatch(r"  \S+ +[\d,]+", line)]
    assert sum(counts[:-1]) == counts[-1]
    [held] = [line for line in lines if "records to be shuffled" in line]
    assert float(held.split()[-2].replace(",", "")) > 0
    assert not list(tmp_path.iterdir())


def test_it_says_where_a_run_goes_on(small_run: Path, tmp_path: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in small_run.rglob("*"))
    code, output, error = capsnet(tmp_path, "train", "--run", str(small_run), "--train.epochs", "1", "--dry-run")
    assert code == 0, error
    assert f"{small_run}, goes on from step {STEPS}" in output
    assert "changed since the run began: train.epochs (0.5 -> 1.0)" in output
    assert sorted(path.stat().st_mtime_ns for path in small_run.rglob("*")) == before


def test_ranks_share_the_batch_and_it_is_said_once(tmp_path: Path) -> None:
    code, output, error = capsnet(tmp_path, "launch", "--ranks", "4", "train", "quick", "--dry-run")
    assert code == 0, error
    assert output.count("a rank's batch: 32, of 28x28x1") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["quick", "--data.uri", "none"], "none: no such folder"),
        (["quick", "--model.image_size", "30"], "image_size"),
        (["nonsense"], "unknown recipe nonsense"),
        (["--weights-from", "none"], "none: not a run directory"),
    ],
)
def test_it_refuses_what_the_run_refuses(tmp_path: Path, words: list[str], line: str) -> None:
    dry, real = capsnet(tmp_path, "train", *words, "--dry-run"), capsnet(tmp_path, "train", *words)
    assert dry == real
    assert dry[0] == 2
    assert line in dry[2]


def test_it_refuses_weights_of_another_model(small_run: Path, tmp_path: Path) -> None:
    words = ["train", "sabour2017", *FIELDS, "--model.primary.types", "2", "--weights-from", str(small_run)]
    dry, real = capsnet(tmp_path, *words, "--dry-run"), capsnet(tmp_path, *words)
    assert dry[0] == real[0] == 2
    assert dry[2] == real[2]
    assert "this model has" in dry[2]


def test_several_ranks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    code, _, error = capsnet(tmp_path, "launch", "--ranks", "3", "train", "quick", "--dry-run")
    assert code == 2
    assert "3 ranks do not divide data.lanes 8" in error


def test_the_memory_that_it_tells_is_what_a_step_takes() -> None:
    measured, told = bench_memory.compared("cifar10", 32)
    # 1.07 was measured; kernels take memory of their own, and the kernel of the system counts pages late
    assert told / 1.5 < measured < 1.5 * told
