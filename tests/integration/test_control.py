"""A run of the convolutional control, from training to export: nothing behind the network asks for capsules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.integration.harness import records, start, train

CONTROL = {"model.head.kind": "conv_multiply_adds", "log.observe_every_steps": "10", "train.epochs": "1"}


def test_a_control_trains_resumes_evaluates_and_is_exported(tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    train(run, fields=CONTROL)
    best = max(record["accuracy"] for record in records(run, "test"))
    assert best > 0.3  # a tenth by chance
    done = subprocess.run([sys.executable, "-m", "trainer", "evaluate", str(run)], capture_output=True, text=True)
    assert f"test accuracy: {100 * best:.2f} % of 2000" in done.stdout, done.stderr
    subprocess.run([sys.executable, "-m", "trainer", "export", str(run), str(exported)], check=True)
    code = (
        "import sys, json, numpy as np, trainer; images = np.zeros([2, 28, 28, 1], np.uint8); "
        "print(json.dumps([trainer.load(path).scores_BJ(images).tolist() for path in sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run), str(exported)], capture_output=True, text=True)
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # another graph, float32
    train(run, recipe="", fields={**CONTROL, "train.epochs": "1.1"})

    # fewer iterations cost less, and the control would be smaller
    fields = {**CONTROL, "train.epochs": "1.2", "model.routing.iterations": "1"}
    code, output = start(run, "--allow-changes", recipe="", fields=fields).finish()
    assert code == 2
    assert "is sized after what it replaces; start a new run with --weights-from" in output
