"""A cell of a study of ranks. ``python -m trainer.probe.ranks SPEC ANSWER``.

First the parts of a step, each timed on all ranks at once, the slowest of which counts: without reduction (``local``),
the reduction of all gradients alone, and the whole, so that what of the reduction is not hidden behind the backward
pass is a difference of two (``exposed``). Then a real training run, for images/s and the share of input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from trainer.errors import EXIT_DONE, CapsnetError
from trainer.probe.records import ERROR, OK
from trainer.probe.together import run_ranks
from trainer.probe.watch import leave
from trainer.rundir import RunDirectory

LAST_LINES = 2


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    ranks = int(given["settings"].get("ranks", "1"))
    try:
        parts = run_ranks("trainer.probe.rank_step", ranks, str(spec))
    except CapsnetError as error:
        leave(answer, ERROR, str(error))
        return 0
    run = RunDirectory(answer.parent / "run")
    words = ["launch", "--ranks", str(ranks)] if ranks > 1 else []
    fields = [f"--{name}={value}" for name, value in given["fields"].items()]
    command = [sys.executable, "-m", "trainer", *words, "train", given["recipe"], "--run", str(run.path), *fields]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != EXIT_DONE:
        leave(answer, ERROR, " / ".join(done.stderr.strip().splitlines()[-LAST_LINES:]))
        return 0
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    training = [each for each in records if each["kind"] == "train"]
    means = {name: float(np.median([each[name] for each in training])) for name in ("images_per_second", "input_wait")}
    leave(answer, OK, "", None, **parts, **means)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
