"""``make bench``, third part: seconds from SIGTERM until a run has saved its work and is gone.

Steps of a second or two and a checkpoint of about 500 MB, to a folder and to a bucket, at one and two ranks. The bucket
is on fake-gcs-server, which takes its share of the same cores and keeps all in memory; what it takes of bare uploads is
said beside.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.gcs import server
from tools.bench_data import make_bucket, seconds
from trainer import checkpoint, storage
from trainer.errors import EXIT_INTERRUPTED
from trainer.output import copies, newest

FIELDS = {
    "model.decoder.hidden": "5800,5800",
    "log.observe_every_steps": "0",
    "log.print_seconds": "1",
}
"""Decoder and its optimizer make the checkpoint large."""
STEPS_BEFORE = 8
STEP = re.compile(r"step (\d+)/")


def stopped(run: str, ranks: int) -> tuple[float, float]:
    """(seconds from SIGTERM to the end, seconds of a step before it)."""
    command = [sys.executable, "-m", "trainer", "launch", "--ranks", str(ranks), "train", "quick", "--run", run]
    command += [part for name, value in FIELDS.items() for part in (f"--{name}", value)]
    times: list[float] = []
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if STEP.match(line):
                times.append(time.perf_counter())
            if len(times) > STEPS_BEFORE:
                process.send_signal(signal.SIGTERM)
                break
        began = time.perf_counter()
        said.append(process.communicate()[0])
        took = time.perf_counter() - began
    if process.returncode != EXIT_INTERRUPTED:
        raise SystemExit(f"ended with {process.returncode}: {''.join(said)}")
    return took, (times[-1] - times[0]) / STEPS_BEFORE


def size_of(run: Path) -> int:
    """Bytes of its newest checkpoint."""
    return sum(file.stat().st_size for file in checkpoint.paths(run / "checkpoints")[-1].iterdir())


def bare(bucket: str, run: Path) -> float:
    """Bytes per second of the newest checkpoint, stored while nothing else is done."""
    path = checkpoint.paths(run / "checkpoints")[-1]
    return size_of(run) / seconds(lambda: copies.store(bucket, "bare", path))


def measured(ranks: int, repeats: int, bucket: str, folder: Path) -> str:
    took: dict[str, list[float]] = {"folder": [], "bucket": []}
    steps, rates, sizes = [], [], []
    for repeat in range(repeats):
        run, stored = folder / f"{ranks}-{repeat}", f"{bucket}/{ranks}-{repeat}"
        for place, where in (("folder", str(run)), ("bucket", stored)):
            ended, step = stopped(where, ranks)
            took[place].append(ended)
            steps.append(step)
        assert newest.step(stored) >= STEPS_BEFORE, "the bucket has no checkpoint of it"
        rates.append(bare(bucket, run))
        sizes.append(size_of(run))
        shutil.rmtree(run)
        for name in storage.listing(bucket):  # the server keeps all in memory
            storage.delete(f"{bucket}/{name}")
    told = ", ".join(
        f"{place} {statistics.median(each):.1f} ({min(each):.1f} .. {max(each):.1f})" for place, each in took.items()
    )
    return (
        f"SIGTERM to the end, {ranks} rank{'s' if ranks > 1 else ''}, steps of {statistics.median(steps):.1f} s, a "
        f"checkpoint of {max(sizes) / 1e6:.0f} MB, seconds:\n  {told}\n  uploads by themselves: "
        f"{statistics.median(rates) / 1e6:.0f} MB/s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_stop", description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, server.running(advertised="http://127.0.0.1:1") as endpoint:
        os.environ["STORAGE_EMULATOR_HOST"] = endpoint
        bucket = make_bucket(endpoint)
        for ranks in (1, 2):
            print(measured(ranks, parsed.repeats, bucket, Path(temporary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
