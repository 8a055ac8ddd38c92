"""What is left to do, and what was measured, from nothing but files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trainer import config as configuration
from trainer.compare import outcome, plan
from trainer.compare.outcome import Outcome
from trainer.compare.plan import Cell, Folder, Request
from trainer.errors import ConfigError

STEPS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.outcomes.mkdir()
    return found


def cell(overlap: bool = False) -> Cell:
    comparison = plan.planned(Request(routing=["dynamic"], seeds=1, overlap=True), None, "")
    return plan.cells(comparison)[overlap]


def train(step: int, rate: float | None = 100.0, memory: float = 500.0) -> dict[str, Any]:
    return {"kind": "train", "step": step, "images_per_second": rate, "peak_memory_mib": memory, "seconds": 2.0 * step}


TEST = {"kind": "test", "step": STEPS, "accuracy": 0.9}


def write_run(
    folder: Folder,
    mine: Cell,
    records: list[dict[str, Any]],
    *,
    saved: int | None = None,
    affine: tuple[int, float] | None = None,
    ended: dict[str, Any] | None = None,
) -> None:
    run = folder.run(mine)
    run.mkdir(parents=True)
    (run / "config.json").write_text(configuration.dump(mine.config))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if saved is not None:
        (run / "checkpoints" / f"step-{saved:08d}").mkdir(parents=True)
    if affine is not None:
        folder.affine(mine).write_text(json.dumps({"step": affine[0], "accuracy": affine[1]}))
    if ended is not None:
        folder.outcome(mine).write_text(json.dumps(ended))


def read(folder: Folder, mine: Cell) -> Outcome:
    return outcome.read(folder, mine, STEPS)


def test_nothing_is_missing(folder: Folder) -> None:
    assert read(folder, cell()) == Outcome("missing")


def test_a_run_that_was_killed_is_to_be_resumed(folder: Folder) -> None:
    write_run(folder, cell(), [train(10)], saved=10)
    found = read(folder, cell())
    assert (found.state, found.step, found.test_accuracy, found.is_final) == ("begun", 10, None, False)


def test_a_test_score_of_an_earlier_step_does_not_count(folder: Folder) -> None:
    write_run(folder, cell(), [train(10), {**TEST, "step": 10}], saved=10)
    assert read(folder, cell()).state == "begun"


def test_a_run_that_is_killed_before_its_last_save_is_not_trained(folder: Folder) -> None:
    write_run(folder, cell(), [train(20), TEST], saved=10)
    assert read(folder, cell()).state == "begun"


def test_a_trained_run_is_to_be_scored_on_the_affine_set(folder: Folder) -> None:
    write_run(folder, cell(), [train(20), TEST], saved=20)
    assert read(folder, cell()).state == "trained"


def test_an_affine_score_of_another_checkpoint_does_not_count(folder: Folder) -> None:
    write_run(folder, cell(), [train(20), TEST], saved=20, affine=(10, 0.5))
    assert read(folder, cell()).state == "trained"


def test_a_run_that_is_done_says_what_it_measured(folder: Folder) -> None:
    records = [train(1, None, 300), train(5, 10), train(10, 100, 700), train(15, 120, 650), train(20, 90), TEST]
    ended = {"code": 0, "cause": "", "versions": {"python": "3"}}
    write_run(folder, cell(), records, saved=20, affine=(20, 0.625), ended=ended)
    assert read(folder, cell()) == Outcome("done", 20, "", 0.9, 0.625, 100.0, 700.0, 40.0, {"python": "3"})


def test_scenes_have_no_affine_set(folder: Folder) -> None:
    write_run(folder, cell(overlap=True), [train(20), TEST], saved=20)
    assert read(folder, cell(overlap=True)).state == "done"


def test_a_run_that_diverged_is_not_tried_again(folder: Folder) -> None:
    write_run(folder, cell(), [train(5)], ended={"code": 3, "cause": "diverged at step 6"})
    found = read(folder, cell())
    assert (found.state, found.cause, found.is_final) == ("diverged", "diverged at step 6", True)


def test_a_run_that_failed_is_tried_again(folder: Folder) -> None:
    write_run(folder, cell(), [train(5)], ended={"code": 75, "cause": "rank 0 ended without a word"})
    found = read(folder, cell())
    assert (found.state, found.cause, found.is_final) == ("failed", "rank 0 ended without a word", False)


def test_a_run_that_failed_before_it_began(folder: Folder) -> None:
    folder.outcome(cell()).write_text(json.dumps({"code": 2, "cause": "no data"}))
    assert read(folder, cell()) == Outcome("failed", cause="no data")


def test_what_is_done_counts_whatever_happened_before(folder: Folder) -> None:
    ended = {"code": 75, "cause": "a rank died"}
    write_run(folder, cell(), [train(20), TEST], saved=20, affine=(20, 0.5), ended=ended)
    assert (read(folder, cell()).state, read(folder, cell()).cause) == ("done", "")


def test_files_that_are_cut_short_are_as_if_they_were_not_there(folder: Folder) -> None:
    write_run(folder, cell(), [train(20), TEST], saved=20, affine=(20, 0.5))
    folder.affine(cell()).write_text('{"step": 20, "accu')
    folder.outcome(cell()).write_text("")
    with (folder.run(cell()) / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert read(folder, cell()).state == "trained"


@pytest.mark.parametrize("field", ["optimizer.learning_rate", "train.epochs"])
def test_a_run_of_another_configuration_is_refused(folder: Folder, field: str) -> None:
    other = cell()
    config = configuration.with_overrides(other.config, {field: 0.5})
    write_run(folder, Cell(other.arm, other.seed, other.overlap, config), [])
    with pytest.raises(ConfigError, match=rf"was trained with another {field} \(0.5 -> "):
        read(folder, cell())


def test_threads_may_change(folder: Folder) -> None:
    config = configuration.with_overrides(cell().config, {"train.threads": 7})
    write_run(folder, Cell("dynamic", 0, False, config), [])
    assert read(folder, cell()).state == "begun"


def test_the_last_step_is_read_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert outcome.last_step(path) == 0
    path.write_text("")
    assert outcome.last_step(path) == 0
    path.write_text("".join(json.dumps(train(step)) + "\n" for step in range(1, 500)) + '{"kind": "tr')
    assert outcome.last_step(path) == 499


def named(arm: str, seed: int) -> Cell:
    return Cell(arm, seed, False, configuration.RunConfig())


def test_what_is_left_is_told_by_what_is_done() -> None:
    done, missing = Outcome("done", seconds=100.0), Outcome("missing")
    a0, b0, a1, b1 = named("a", 0), named("b", 0), named("a", 1), named("b", 1)
    assert math.isnan(outcome.remaining_seconds([(a0, missing), (b0, missing)]))
    # nothing is known of b: it is taken for as slow as a
    assert outcome.remaining_seconds([(a0, done), (b0, missing), (a1, missing), (b1, missing)]) == 300
    fast = Outcome("done", seconds=10.0)
    assert outcome.remaining_seconds([(a0, done), (b0, fast), (a1, missing), (b1, missing)]) == 110
    assert outcome.remaining_seconds([(a0, done), (b0, Outcome("diverged"))]) == 0


def test_the_run_under_way_tells_of_itself() -> None:
    missing = Outcome("missing")
    a0, a1, b0 = named("a", 0), named("a", 1), named("b", 0)
    cells = [(a0, missing), (b0, missing), (a1, missing)]
    assert outcome.remaining_seconds(cells, "a-seed0", 40.0, 30.0) == 30 + 40 + 40
    assert math.isnan(outcome.remaining_seconds(cells, "a-seed0"))
    cells[0] = (a0, Outcome("done", seconds=40.0))
    assert outcome.remaining_seconds(cells, "b-seed0") == 40 + 40
    assert outcome.remaining_seconds(cells, "b-seed0", 10.0, 1.0) == 1 + 40
