"""From runs to arms, tables, files and pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.compare import plan, plot, results, scenes, table
from trainer.compare.outcome import Outcome
from trainer.compare.plan import Comparison, Request

DONE = Outcome("done", 20, "", 0.9, 0.5, 100.0, 500.0, 60.0, {"python": "3"})
RECORDS = 2000


def comparison(**asked: Any) -> Comparison:
    return plan.planned(Request(**{"routing": ["dynamic,first,long_name_of_twenty_:loss.scale=2"], **asked}), None, "")


def runs(of: Comparison, changed: dict[str, Outcome]) -> list[tuple[plan.Cell, Outcome]]:
    scene = replace(DONE, affine_accuracy=None, test_accuracy=0.25)
    return [(cell, changed.get(cell.name, scene if cell.overlap else DONE)) for cell in plan.cells(of)]


def summarised(of: Comparison, **changed: Outcome) -> dict[str, results.Arm]:
    named = {name.replace("_seed", "-seed").replace("_overlap", "-overlap"): found for name, found in changed.items()}
    return {arm.name: arm for arm in results.summarised(of, runs(of, named), RECORDS)}


def test_an_arm_is_the_mean_of_its_seeds() -> None:
    found = summarised(
        comparison(overlap=True),
        first_seed0=replace(DONE, test_accuracy=0.80, images_per_second=150.0, peak_memory_mib=400.0, seconds=10.0),
        first_seed1=replace(DONE, test_accuracy=0.82, images_per_second=250.0, peak_memory_mib=600.0, seconds=30.0),
        first_seed2=replace(DONE, test_accuracy=0.84, images_per_second=300.0, peak_memory_mib=550.0, seconds=20.0),
        dynamic_seed1=replace(DONE, images_per_second=500.0),
    )
    first = found["first"]
    assert first.scores["test"].mean == pytest.approx(0.82)
    assert (first.scores["test"].kind, first.scores["affine"].mean, first.scores["overlap"].mean) == ("t", 0.5, 0.25)
    assert first.seeds["test"] == [0.80, 0.82, 0.84]
    assert (first.images_per_second, first.peak_memory_mib, first.seconds) == (250.0, 600.0, 20.0)
    assert first.speed_ratio == 1.5  # of 150/100, 250/500, 300/100: seeds are compared with themselves
    assert found["dynamic"].speed_ratio == 1.0
    assert found["dynamic"].gains == {}
    gain = first.gains["test"]  # 0.80, 0.82 and 0.84 less 0.9: half width 4.303 x 0.02 / sqrt 3
    assert (gain.kind, gain.mean) == ("paired t", pytest.approx(-0.08))
    assert (gain.low, gain.high) == (pytest.approx(-0.08 - 0.04968, abs=1e-5), pytest.approx(-0.08 + 0.04968, abs=1e-5))
    rows = table.gains(list(found.values()), ["test"])
    assert rows[:2] == [["minus dynamic", "test %"], ["first", "-8.00 ± 4.97"]]
    assert first.changes == (("model.routing.iterations", "3", "1"),)
    assert found["dynamic"].changes == ()


def test_what_diverged_is_left_out_of_means_and_is_told() -> None:
    gone = Outcome("diverged", 3, "at step 4")
    found = summarised(comparison(), first_seed0=gone, first_seed1=gone, first_seed2=gone, dynamic_seed1=gone)
    assert found["first"].scores == {}
    assert found["first"].troubles == ("diverged: first-seed0, first-seed1, first-seed2 (the first: at step 4)",)
    assert found["dynamic"].scores["test"].mean == pytest.approx(0.9)
    assert len(found["dynamic"].seeds["test"]) == 2
    assert table.scores(list(found.values()), ["test", "affine"])[2] == ["first", "diverged", "diverged"]


def test_seeds_are_compared_with_themselves_only() -> None:
    low, high = replace(DONE, test_accuracy=0.5), replace(DONE, test_accuracy=0.7)
    gone = Outcome("diverged", 3, "at step 4")
    found = summarised(comparison(), dynamic_seed0=low, dynamic_seed1=high, dynamic_seed2=gone, first_seed0=high)
    assert found["first"].gains["test"].mean == pytest.approx(0.2)  # 0.7 - 0.5 and 0.9 - 0.7
    assert (found["first"].gains["test"].low, found["first"].gains["test"].high) == pytest.approx((0.2, 0.2))
    assert table.gains(list(summarised(comparison(seeds=1)).values()), ["test"]) is None


def test_what_is_not_done_is_shown_as_not_known() -> None:
    found = list(summarised(comparison(seeds=1), dynamic_seed0=Outcome("missing")).values())
    assert table.scores(found, ["test"])[1] == ["dynamic", "-"]
    assert table.costs(found)[1][3:] == ["-", "-", "-"]
    assert table.costs(found)[2][4] == "-"  # no ratio to what is not known


def test_the_tables_have_80_columns_at_most_and_say_what_they_hold() -> None:
    of = comparison(overlap=True, fields={"train.epochs": "2"})
    large = replace(DONE, images_per_second=123456.0, peak_memory_mib=12345.0, test_accuracy=1.0)
    arms = list(summarised(of, dynamic_seed0=large, first_seed2=Outcome("diverged", 3, "at step 4 " * 20)).values())
    said = table.notes(of, arms, RECORDS, 156)
    text = table.as_text([table.scores(arms, results.SETS), table.gains(arms, results.SETS), table.costs(arms)], said)
    assert max(map(len, text.splitlines())) <= table.COLUMNS
    assert "seeds 0 to 2" in text
    assert "156 steps" in text
    assert "95 % t interval" in text
    assert "Wilson" not in text
    assert "first: model.routing.iterations 1 (recipe: 3)." in text
    assert "train.epochs 2" in text
    one = comparison(seeds=1)
    assert "Wilson interval for 2,000" in " ".join(table.notes(one, list(summarised(one).values()), RECORDS, 1))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.00 M"), (281_000, "0.28 M"), (9_481_000, "9.48 M"), (15_810_000, "15.8 M")]
)
def test_millions(count: int, text: str) -> None:
    assert table.millions(count) == text


def test_millions_of_millions() -> None:
    assert table.millions(209_200_000) == "209 M"
    assert table.millions(3_210_400_000) == "3,210 M"


def test_markdown_has_a_column_for_each() -> None:
    of = comparison()
    arms = list(summarised(of).values())
    text = table.as_markdown("Title", [table.scores(arms, ["test"]), table.costs(arms)], ["a note"])
    lines = text.splitlines()
    assert lines[0] == "# Title"
    assert lines[2:5] == ["| arm | test % |", "| --- | ---: |", "| dynamic | 90.00 [90.0, 90.0] |"]
    assert lines[-1] == "- a note"


def test_results_json_holds_every_run_with_its_configuration() -> None:
    of = comparison(seeds=2, overlap=True)
    found = runs(of, {"first-seed1": Outcome("diverged", 3, "at step 4")})
    tree = json.loads(results.as_json(of, results.summarised(of, found, RECORDS), found, {"name": "set"}))
    assert (tree["format"], tree["recipe"], tree["data"], tree["overlap"]) == (1, "quick", {"name": "set"}, True)
    assert len(tree["runs"]) == 3 * 2 * 2
    by_name = {run["run"]: run for run in tree["runs"]}
    assert by_name["first-seed1"]["state"] == "diverged"
    assert by_name["first-seed0"]["config"]["model"]["routing"]["iterations"] == 1
    assert by_name["dynamic-seed0"]["versions"] == {"python": "3"}
    assert tree["arms"][0]["scores"]["test"] == pytest.approx({"mean": 0.9, "low": 0.9, "high": 0.9, "kind": "t"})


def test_results_csv_has_a_line_a_run() -> None:
    of = comparison(seeds=2)
    rows = list(csv.DictReader(io.StringIO(results.as_csv(runs(of, {})).decode())))
    assert [row["run"] for row in rows[:2]] == ["dynamic-seed0", "first-seed0"]
    assert (rows[0]["test_accuracy"], rows[0]["state"], rows[0]["seconds"]) == ("0.9", "done", "60.0")
    assert "config" not in rows[0]


@pytest.mark.parametrize("seeds", [1, 3])
def test_pictures_of_whatever_there_is(seeds: int) -> None:
    of = comparison(seeds=seeds, overlap=True)
    arms = list(summarised(of, dynamic_seed0=Outcome("missing"), first_seed0=Outcome("diverged")).values())
    for content in (plot.accuracy("title", arms), plot.cost("title", arms)):
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            assert image.width == round(plot.WIDTH * plot.DPI)


def test_nothing_done_yet_is_a_picture_too() -> None:
    of = comparison(seeds=1)
    arms = results.summarised(of, [(cell, Outcome("missing")) for cell in plan.cells(of)], RECORDS)
    assert plot.accuracy("title", arms)[:4] == b"\x89PNG"
    assert plot.cost("title", arms)[:4] == b"\x89PNG"


def test_reconstructions_stand_beside_the_source_of_their_class() -> None:
    labels_N2 = np.array([[1, 2], [1, 2], [1, 2], [1, 2]])
    found_N2 = np.array([[1, 2], [2, 1], [2, 5], [5, 6]])
    pictures_N2HWC = found_N2.astype(float)[:, :, None, None, None]
    classes, pictures = scenes.in_order_of(labels_N2, found_N2, pictures_N2HWC)
    assert classes.tolist() == [[1, 2], [1, 2], [5, 2], [5, 6]]
    assert np.array_equal(pictures[..., 0, 0, 0], classes)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_scenes(channels: int) -> None:
    rng = np.random.default_rng(0)
    decoded = scenes.Decoded(
        rng.random((2, 12, 12, channels)),
        rng.random((2, 2, 12, 12, channels)),
        np.full((2, 2, 12, 12, channels), np.nan),
        np.array([[0, 1], [1, 2]]),
        np.array([[0, 2], [1, 2]]),
        ("a", "b", "c"),
    )
    assert scenes.picture("title", decoded)[:4] == b"\x89PNG"
