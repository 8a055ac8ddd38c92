from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_finish() -> None:
    """What the tests of this process compute is small; what they start has threads of its own."""
    gc.freeze()  # TensorFlow's hundreds of thousands of objects, which every collection would visit
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.threading.set_intra_op_parallelism_threads(1)  # workers share the cores


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """``(name, make)``: the folder that ``make`` filled for the first test of any worker that asked for it."""
    workers = "PYTEST_XDIST_WORKER" in os.environ
    shared = tmp_path_factory.getbasetemp().parent if workers else tmp_path_factory.getbasetemp()

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        there, made = shared / f"once-{name}", shared / f"once-{name}.made"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(there, ignore_errors=True)
                there.mkdir()
                make(there)
                made.touch()
        return there

    return folder
