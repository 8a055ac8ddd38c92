"""A run that was killed and resumed is the run that was never interrupted."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.integration.harness import (
    OFTEN,
    SMALL,
    STEPS,
    checkpoints,
    last_step,
    leftovers,
    losses,
    records,
    start,
    train,
)
from trainer import checkpoint
from trainer.data.batches import STAGES
from trainer.data.index import folder_of


def assert_same(folder: Path, whole: Path) -> None:
    """Same records, same weights and optimizer, bit for bit."""
    timed = {
        "images_per_second",
        "step_seconds",
        "input_wait",
        "seconds",
        "peak_memory_mib",
        *(f"wait_{stage}" for stage in STAGES),
    }
    for kind in ("train", "test"):
        ours, theirs = (
            [{name: value for name, value in record.items() if name not in timed} for record in records(each, kind)]
            for each in (folder, whole)
        )
        assert ours == theirs
    ours_end, theirs_end = (checkpoint.choose(each / "checkpoints", "last", print) for each in (folder, whole))
    assert ours_end.state.step == theirs_end.state.step
    for name, tensor in theirs_end.tensors.items():
        np.testing.assert_array_equal(ours_end.tensors[name], tensor, err_msg=name)


def test_killed_at_random_moments(tmp_path: Path, whole: Path) -> None:
    """SIGKILL to the whole run again and again, at any phase that it happens to be in."""
    folder = tmp_path / "run"
    moments = random.Random(7)
    for attempt in range(3):
        run = start(folder, fields=OFTEN, recipe="" if (folder / "config.json").exists() else "sabour2017")
        before = last_step(folder)
        if attempt == 0:
            time.sleep(moments.uniform(0, 3))
        else:
            goal = min(before + moments.randint(1, 12), STEPS)
            run.wait_for(lambda goal=goal, run=run: last_step(folder) >= goal or run.process.poll() is not None)
            time.sleep(moments.uniform(0, 0.05))
        run.signal(signal.SIGKILL)
        run.finish()
        steps = [record["step"] for record in records(folder)]
        assert steps == sorted(set(steps))
    train(folder, recipe="" if (folder / "config.json").exists() else "sabour2017", fields=OFTEN)
    assert_same(folder, whole)
    assert not leftovers(folder)


def test_a_damaged_newest_checkpoint_is_reported_and_passed_over(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    run = start(folder, fields=OFTEN)
    run.wait_for(lambda: len(checkpoints(folder)) >= 2)
    run.signal(signal.SIGTERM)
    assert run.finish()[0] == 75
    newest = folder / "checkpoints" / checkpoints(folder)[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 128
    newest.write_bytes(data)
    output = train(folder, recipe="", fields=OFTEN)
    assert f"{newest}: wrong checksum" in output
    assert_same(folder, whole)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = start(folder, fields={"train.epochs": "1000"})
    run.wait_for_step(1)
    code, output = start(folder, recipe="", fields={"train.epochs": "1000"}).finish()
    assert code == 2, output
    assert "in use by another process (pid " in output
    run.signal(signal.SIGTERM)
    assert run.finish()[0] == 75


@pytest.mark.usefixtures("in_turn")
def test_a_budget_stops_in_time_with_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = start(folder, fields={"train.epochs": "1000", "train.budget_seconds": "8"})
    code, output = run.finish()
    assert code == 75
    assert "the time budget is spent" in output
    assert time.monotonic() - run.began < 8 + 5  # and the end of the interpreter, on a busy machine
    assert checkpoints(folder)[-1] == f"step-{last_step(folder):08d}"


def test_what_may_change_in_a_run_and_what_may_not(tmp_path: Path, whole: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    shutil.copytree(folder_of("embedded"), copy)
    train(folder, fields={**OFTEN, "train.epochs": "0.2"})
    longer = {**OFTEN, "train.epochs": "0.5", "data.uri": str(copy)}
    output = train(folder, recipe="", fields=longer)
    assert "train.epochs (0.2 -> 0.5)" in output
    assert losses(folder)[-1] == losses(whole)[-1]

    changed = {**longer, "train.epochs": "0.55", "optimizer.learning_rate": "0.01"}
    code, output = start(folder, recipe="", fields=changed).finish()
    assert code == 2
    assert "optimizer.learning_rate (0.001 -> 0.01)" in output
    output = train(folder, "--allow-changes", recipe="", fields=changed)
    assert "changed since the run began: optimizer.learning_rate" in output
    assert json.loads((folder / "config.json").read_text())["optimizer"]["learning_rate"] == 0.01

    index = json.loads((copy / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["crc32c"] ^= 1
    (copy / "index.json").write_text(json.dumps(index))
    code, output = start(folder, recipe="", fields=changed).finish()
    assert code == 2, output
    assert "other records than those that" in output


def test_the_configuration_of_a_run_makes_another(tmp_path: Path, whole: Path) -> None:
    train(tmp_path / "again", "--from-run", str(whole), recipe="", small=False)
    assert_same(tmp_path / "again", whole)


def test_weights_of_another_run_with_a_new_head(tmp_path: Path, whole: Path) -> None:
    common = ("--weights-from", str(whole))
    fields = {"train.epochs": "0.02", "optimizer.learning_rate": "1e-12"}
    train(tmp_path / "same", *common, fields=fields)
    theirs = checkpoint.choose(whole / "checkpoints", "last", print).tensors
    ours = checkpoint.choose(tmp_path / "same" / "checkpoints", "last", print).tensors
    weights = [name for name in theirs if name.startswith("weights/")]
    assert len(weights) > 5
    for name in weights:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-9)  # two updates at a rate of 1e-12

    first = start(tmp_path / "early", *common, fields={**fields, "train.epochs": "10"})
    first.wait_for((first.folder / "config.json").exists)  # which makes it a run, and comes after the first checkpoint
    first.signal(signal.SIGKILL)
    first.finish()
    train(first.folder, recipe="", fields=fields)
    assert losses(first.folder) == losses(tmp_path / "same")  # and not those of random weights

    code, output = start(tmp_path / "bad", *common, fields={**fields, "model.head.pose": "8"}).finish()
    assert code == 2
    assert "--new-head" in output
    assert not (tmp_path / "bad").exists()
    train(tmp_path / "new", *common, "--new-head", fields={**fields, "model.head.pose": "8"})
    new = checkpoint.choose(tmp_path / "new" / "checkpoints", "last", print).tensors
    stem = "weights/capsnet/stem/conv_0/kernel"
    np.testing.assert_allclose(new[stem], theirs[stem], atol=1e-9)
    assert new["weights/capsnet/class_capsules/transform"].shape[-1] == 8


def test_small_values_stand_for_the_recipe(whole: Path) -> None:
    """The tests' network is the recipe with fields replaced, not a code path of its own."""
    config = json.loads((whole / "config.json").read_text())
    assert config["recipe"] == "sabour2017"
    assert config["model"]["stem"]["channels"] == [int(SMALL["model.stem.channels"])]
