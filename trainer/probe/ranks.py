"""A cell of a study of ranks. ``python -m trainer.probe.ranks SPEC ANSWER``.

First the parts of a step, each timed on all ranks at once, the slowest of which counts: without reduction (``local``),
the reduction of all gradients alone, and the whole, so that what of the reduction is not hidden behind the backward
pass is a difference of two (``exposed``). Then a real training run, for images/s and the share of input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from trainer.errors import EXIT_DONE, CapsnetError
from trainer.probe.command import capsnet, overrides, said, training_records
from trainer.probe.records import ERROR, OK
from trainer.probe.together import run_ranks
from trainer.probe.watch import leave
from trainer.rundir import RunDirectory


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    ranks = int(given["settings"].get("ranks", "1"))
    try:
        parts = run_ranks("trainer.probe.rank_step", ranks, str(spec))
    except CapsnetError as error:
        leave(answer, ERROR, str(error))
        return 0
    run = RunDirectory(answer.parent / "run")
    launch = ["launch", "--ranks", str(ranks)] if ranks > 1 else []
    done = capsnet(*launch, "train", given["recipe"], "--run", str(run.path), *overrides(given["fields"]))
    if done.returncode != EXIT_DONE:
        leave(answer, ERROR, said(done))
        return 0
    training = training_records(run.metrics)
    means = {name: float(np.median([each[name] for each in training])) for name in ("images_per_second", "input_wait")}
    leave(answer, OK, "", None, **parts, **means)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
