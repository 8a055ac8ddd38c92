import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer import metrics, rundir
from trainer.errors import CheckpointError
from trainer.rundir import RunDirectory

HOLD = """
import sys, time
from pathlib import Path
from trainer.rundir import RunDirectory
RunDirectory(Path(sys.argv[1])).lock()
print(flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "LOCK_PATIENCE_SECONDS", 0.3)
    script = tmp_path / "hold.py"
    script.write_text(HOLD)
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / "run")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(CheckpointError, match=rf"in use by another process \(pid {holder.pid}\)"):
            RunDirectory(tmp_path / "run").lock()
        holder.kill()
    RunDirectory(tmp_path / "run").lock()


def test_records_beyond_a_step_and_a_torn_line_are_removed(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    file = metrics.MetricsFile(directory.metrics)
    for step in range(1, 6):
        file.write("train", step, {"loss": step / 3})
        if step > 1:
            file.write("test", step, {})
    file.close()
    with directory.metrics.open("a") as torn:
        torn.write('{"kind": "train", "step": 3')
    directory.take_back_metrics(3, evaluated_step=2)
    found = [(record["kind"], record["step"]) for record in metrics.read(directory.metrics)]
    assert found == [("train", 1), ("train", 2), ("test", 2), ("train", 3)]
    assert metrics.read(directory.metrics)[0]["loss"] == 1 / 3


def test_values_that_json_lacks_become_null(tmp_path: Path) -> None:
    file = metrics.MetricsFile(tmp_path / "metrics.jsonl")
    file.write("train", 1, {"loss": float("nan")})
    file.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None


def test_new_runs_never_share_a_folder(tmp_path: Path) -> None:
    first = rundir.new_path("quick", tmp_path)
    first.mkdir(parents=True)
    assert rundir.new_path("quick", tmp_path) != first
    assert time.strftime("%Y") in first.name
