"""The number of ranks is not a fact of the run: real processes over Horovod give the same curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.integration.harness import losses, records, start, train
from trainer import checkpoint

pytestmark = pytest.mark.usefixtures("in_turn")
FIFTY_STEPS = {"train.epochs": str(50 / 78), "train.accumulate": "2", "optimizer.clip_norm": "1"}
ROUNDING = 1e-10  # the reduction adds in another order: float64, grown over 50 updates; float32 in test_endings.py


def test_one_two_and_four_ranks_give_the_same_curve(tmp_path: Path) -> None:
    fields = {**FIFTY_STEPS, "train.precision": "float64"}
    for ranks in (1, 2, 4):
        train(tmp_path / str(ranks), ranks=ranks, fields=fields)
    one, two, four = (losses(tmp_path / str(ranks)) for ranks in (1, 2, 4))
    assert len(one) == 50
    assert one[-1] < 0.7 * one[0]  # it learns, so that the curves have something to differ in
    assert two == pytest.approx(one, rel=ROUNDING)
    assert four == pytest.approx(one, rel=ROUNDING)
    assert two != one  # the same bits would mean that the ranks did not share the work

    scores = [records(tmp_path / str(ranks), "test")[-1] for ranks in (1, 2, 4)]
    assert scores[1]["accuracy"] == pytest.approx(scores[0]["accuracy"], abs=1 / 2000)  # one record on the edge
    assert scores[2]["accuracy"] == pytest.approx(scores[0]["accuracy"], abs=1 / 2000)


def test_a_run_goes_on_with_another_number_of_ranks(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fault = {"phase": "input", "step": 25, "action": "kill"}
    code, _ = start(folder, ranks=2, fault=fault, fields={"checkpoint.every_steps": 10}).finish()
    assert code == 75
    train(folder, ranks=4, recipe="")
    assert losses(folder) == pytest.approx(losses(small_run), rel=1e-5)


def test_ranks_that_do_not_divide_the_lanes_are_refused(tmp_path: Path) -> None:
    code, output = start(tmp_path / "run", ranks=3).finish()
    assert code == 2
    assert "3 ranks do not divide data.lanes 8" in output


def test_a_corrupt_record_on_one_rank_ends_all_with_its_name(tmp_path: Path) -> None:
    data = copy_of_embedded(tmp_path / "data")
    shard = data / "train-00007-of-00016.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    fields = {"data.uri": str(data), "train.epochs": "1"}  # an epoch holds every shard
    code, output = start(tmp_path / "run", ranks=2, fields=fields).finish()
    assert code == 2, output
    lines = [line for line in output.splitlines() if line.startswith("capsnet:")]
    assert len(lines) == 1, output
    assert "train-00007-of-00016.tfrecord" in lines[0]
    assert "record" in lines[0]
    assert "Traceback" not in output


def copy_of_embedded(folder: Path) -> Path:
    import shutil

    from trainer.data.index import folder_of

    return Path(shutil.copytree(folder_of("embedded"), folder))


def test_overflows_in_a_row_are_divergence(tmp_path: Path) -> None:
    fields = {"train.precision": "float16", "train.initial_loss_scale": "1e38", "train.max_skipped_steps": "3"}
    code, output = start(tmp_path / "run", ranks=2, fields=fields).finish()
    assert code == 3, output
    assert "diverged at step 3: not finite: the gradient, 3 steps in a row at loss scale 1.25e+37" in output


def test_compressed_gradients_give_nearly_the_same_curve(tmp_path: Path) -> None:
    for name in ("none", "float16"):
        train(tmp_path / name, ranks=2, fields={"train.compression": name, "train.epochs": "0.13"})
    plain, compressed = losses(tmp_path / "none"), losses(tmp_path / "float16")
    assert compressed != plain
    assert compressed == pytest.approx(plain, rel=0.02)  # float16 has three digits


def test_divergence_is_exit_3_with_step_rank_and_terms(tmp_path: Path) -> None:
    fields = {"optimizer.kind": "sgd", "optimizer.learning_rate": "1e30", "checkpoint.every_steps": "1"}
    code, output = start(tmp_path / "run", ranks=2, fields=fields).finish()
    assert code == 3, output
    line = next(line for line in output.splitlines() if line.startswith("capsnet:"))
    assert "diverged at step" in line
    assert "loss on rank 0 (terms: " in line or "the gradient" in line
    named = line.split("last good checkpoint: ")[-1] if "last good" in line else ""
    assert named or "no checkpoint was saved before" in line
    assert not named or finite(Path(named))


def finite(path: Path) -> bool:
    return all(np.isfinite(tensor).all() for tensor in checkpoint.read(path).tensors.values())
