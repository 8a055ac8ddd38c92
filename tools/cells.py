"""What benchmarks of single cells share: a process for each cell, its peak memory, finishing what was computed."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import devices

STEPS = 5


def arguments(program: str, what: str) -> argparse.ArgumentParser:
    """The options that all of them have; ``--cell`` is how a process is told its own."""
    parser = argparse.ArgumentParser(prog=program, description=what.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="interleaved processes of each cell (default: 3)")
    parser.add_argument("--json", type=Path, help="also write the measurements here")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    return parser


def in_process(module: str, cell: dict[str, Any], *, memory: bool) -> dict[str, float]:
    """What ``python -m module --cell JSON`` prints last. With ``memory`` under an allocator whose peak is what is held.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if memory:  # what is freed goes back to the system; TensorFlow's own allocator keeps what it once had
        environment |= {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", module, "--cell", json.dumps({**cell, "memory": memory})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{cell}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def two_threads() -> None:
    """Before TensorFlow does anything. A GPU gives memory as it is needed, so that its peak is what was."""
    import tensorflow as tf

    for card in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(card, True)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(2)


def measure(step: Callable[[], Any], *, memory: bool) -> float:
    """Median seconds of a step after two that warm up; or the bytes at its peak above those of a process at rest.

    On a GPU the bytes are those of its allocator.
    """
    for _ in range(2):
        _finish(step())
    if memory and devices.on_gpu():
        return float(devices.gpu_bytes(lambda: _finish(step())))
    if memory:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        rest = _status("VmRSS")
        _finish(step())
        return _status("VmHWM") - rest
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        _finish(step())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _finish(tensors: Any) -> None:
    """Waits for all of them."""
    import tensorflow as tf

    if devices.on_gpu():
        tf.test.experimental.sync_devices()
        return
    for tensor in tf.nest.flatten(tensors):
        tf.reshape(tensor, [-1])[0].numpy()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])
