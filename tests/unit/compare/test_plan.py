"""What a comparison becomes of what is asked and of what its folder holds already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.compare import plan
from trainer.compare.plan import Comparison, Folder, Request
from trainer.errors import ConfigError


def planned(stored: Comparison | None = None, **asked: object) -> Comparison:
    return plan.planned(Request(**asked), stored, "DIR")  # type: ignore[arg-type]


@pytest.fixture
def stored() -> Comparison:
    return planned(recipe="quick", routing=["dynamic,uniform"], seeds=2, fields={"train.epochs": "4"})


def test_what_is_not_said_has_defaults() -> None:
    found = planned()
    assert (found.recipe, found.seeds, found.fields, found.overlap) == ("quick", 3, {}, False)
    assert found.arms[0].name == "dynamic"


def test_the_same_command_and_none_at_all_are_the_same_comparison(stored: Comparison) -> None:
    asked = {"recipe": "quick", "routing": ["dynamic,uniform"], "seeds": 2, "fields": {"train.epochs": "4"}}
    assert planned(stored, **asked) == planned(stored) == stored


def test_a_comparison_grows(stored: Comparison) -> None:
    grown = planned(stored, routing=["uniform,first"], seeds=3, overlap=True)
    assert [arm.name for arm in grown.arms] == ["dynamic", "uniform", "first"]
    assert (grown.seeds, grown.overlap, grown.fields) == (3, True, stored.fields)
    assert planned(grown) == grown


OTHERS = {
    "another recipe": ({"recipe": "sabour2017"}, "DIR holds another comparison, of recipe quick"),
    "another value": ({"fields": {"train.epochs": "5"}}, "with train.epochs 4"),
    "another field": ({"fields": {"train.epochs": "4", "loss.scale": "2"}}, "with loss.scale as in the recipe"),
    "a field less": ({"fields": {"loss.scale": "2"}}, "with loss.scale as in the recipe"),
    "fewer seeds": ({"seeds": 1}, "DIR has 2 seeds"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_comparison_is_refused(stored: Comparison, case: str) -> None:
    asked, expected = OTHERS[case]
    with pytest.raises(ConfigError, match=expected):
        planned(stored, **asked)


def test_an_arm_of_the_same_name_must_be_the_same() -> None:
    stored = planned(routing=["x:model.head.pose=8"])
    assert planned(stored, routing=["x:model.head.pose=8"]) == stored
    with pytest.raises(ConfigError, match="whose arm x is not this one"):
        planned(stored, routing=["x:model.head.pose=4"])


WRONG = {
    "no seeds": ({"seeds": 0}, "--seeds 0: give 1 or more"),
    "a seed": ({"fields": {"seed": "3"}}, "say how many with --seeds"),
    "scenes for all": ({"fields": {"data.overlap.enabled": "true"}}, "--overlap trains each arm on scenes as well"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str) -> None:
    asked, expected = WRONG[case]
    with pytest.raises(ConfigError, match=expected):
        planned(**asked)


def test_runs_are_interleaved_over_arms() -> None:
    found = plan.cells(planned(routing=["dynamic,first"], seeds=2, overlap=True))
    assert [cell.name for cell in found] == [
        *("dynamic-seed0", "first-seed0", "dynamic-seed0-overlap", "first-seed0-overlap"),
        *("dynamic-seed1", "first-seed1", "dynamic-seed1-overlap", "first-seed1-overlap"),
    ]
    assert [cell.config.seed for cell in found] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_all_arms_have_one_budget_and_one_order_of_data() -> None:
    found = plan.cells(planned(seeds=1, fields={"train.epochs": "2"}))
    assert len({cell.config.train.model_dump_json() for cell in found}) == 1
    assert len({cell.config.data.model_dump_json() for cell in found}) == 1


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    comparison = planned(routing=["dynamic,inverted,x:model.head.pose=8,sabour2017"], overlap=True)
    assert plan.load(folder) is None
    folder.plan.write_bytes(plan.dump(comparison))
    assert plan.load(folder) == comparison


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert plan.load(Folder(tmp_path / "none")) is None
    (tmp_path / ".lock").touch()  # of a comparison that was killed before it said what it is
    assert plan.load(Folder(tmp_path)) is None
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match="neither empty nor a comparison"):
        plan.load(Folder(tmp_path))
    for content in ("{", "[]", "{}", json.dumps({"format": 1, "colour": "red"})):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(ConfigError, match="not a comparison"):
            plan.load(Folder(tmp_path))
    (tmp_path / "plan.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="another version"):
        plan.load(Folder(tmp_path))


def test_a_run_is_started_with_what_its_arm_changes() -> None:
    comparison = planned(routing=["uniform"], seeds=2)
    words = plan.command(plan.cells(comparison)[1], Path("runs/x"))
    assert words[:4] == ["train", "quick", "--run", "runs/x"]
    assert set(words[4:]) == {"--model.routing.algorithm=uniform", "--seed=1", "--checkpoint.keep_last=1"}
