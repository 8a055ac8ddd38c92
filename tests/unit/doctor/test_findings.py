from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from trainer.doctor import libraries, machine
from trainer.doctor.finding import Answer, asked

GIB = 2**30


def test_another_python() -> None:
    assert machine.python((3, 11)).level == "ok"
    found = machine.python((3, 12))
    assert (found.level, "PYTHON=python3.11" in found.mend) == ("problem", True)


@pytest.mark.parametrize(
    ("total", "limit", "level", "said"),
    [
        (16 * GIB, None, "ok", "16.0 GiB"),
        (16 * GIB, 2 * GIB, "warning", "16.0 GiB, this container may use 2.0"),
        (2 * GIB, None, "warning", "2.0 GiB"),
    ],
)
def test_memory_is_what_the_container_may_use(total: int, limit: int | None, level: str, said: str) -> None:
    found = machine.memory(total, limit)
    assert (found.level, found.said) == (level, said)


def test_a_small_or_read_only_place_for_the_cache(tmp_path: Path) -> None:
    assert machine.disk(tmp_path / "a" / "b", 50 * GIB).level == "ok"
    assert "storage.cache_dir" in machine.disk(tmp_path, GIB).mend
    assert machine.disk(Path("/proc/none"), 50 * GIB).level == "problem"


def test_the_default_shared_memory_of_a_container() -> None:
    assert machine.shm(64 * 2**20).level == "warning"
    assert machine.shm(8 * GIB).level == "ok"


@pytest.mark.parametrize(
    ("seen", "cards", "cuda", "chosen", "level", "word"),
    [
        (0, 0, False, None, "ok", "none"),
        (2, 2, True, None, "ok", "2, one a rank"),
        (0, 2, False, None, "problem", "build for CPUs"),
        (1, 2, True, None, "problem", "the driver lists 2, TensorFlow sees 1"),
        (1, 8, True, "3", "ok", "1, one a rank"),
        (1, 8, True, "0,1", "problem", "TensorFlow sees 1"),
        (0, 8, True, "-1", "ok", "none"),
        (0, 8, True, "", "ok", "none"),
    ],
)
def test_gpus_that_nobody_uses_are_a_problem(
    seen: int, cards: int, cuda: bool, chosen: str | None, level: str, word: str
) -> None:
    found = libraries.gpus(seen, cards, cuda=cuda, chosen=chosen)
    assert found.level == level
    assert word in found.said


def test_a_tensorflow_that_cannot_be_imported_or_computes_nonsense() -> None:
    [found] = libraries.tensorflow(Answer(1, "ImportError: libcudart"), 0)
    assert (found.level, found.said) == ("problem", "ImportError: libcudart")
    seen = {"version": "2", "gpus": [], "cuda": False, "product": 7.0}
    assert next(libraries.tensorflow(Answer(0, json.dumps(seen)), 0)).level == "problem"
    assert [each.level for each in libraries.tensorflow(Answer(0, json.dumps({**seen, "product": 8.0})), 0)] == [
        "ok"
    ] * 2


def test_last_words_that_are_no_answer() -> None:
    [found] = libraries.tensorflow(Answer(0, "Segmentation fault, almost"), 0)
    assert found.level == "problem"


def test_what_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    program = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    assert asked(["-c", program], 5).code == -1
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30  # init reaps it
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_of_its_own_may_crash_or_hang() -> None:
    assert asked(["-c", "print(1); print(2)"], 30) == Answer(0, "2", 2)
    assert asked(["-c", "import os; os.abort()"], 30).code == -6
    assert asked(["-c", "raise SystemExit('broken')"], 30) == Answer(1, "broken")
    crash = "import os, sys; print('I0000 a note', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    assert asked(["-c", crash], 30) == Answer(-11, "ended by SIGSEGV")
    assert asked(["-c", "import time; time.sleep(60)"], 0.5) == Answer(-1, "no end within 0.5 s")
