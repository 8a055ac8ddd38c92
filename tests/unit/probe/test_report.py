"""What stands on the page beside limits: pictures, and the model of many ranks."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.unit.probe.test_study import STUDY
from trainer.probe import studies
from trainer.probe.limits import Found, Point
from trainer.probe.records import OK, Result
from trainer.probe.report import figures, runs, scaling
from trainer.probe.report.page import page
from trainer.probe.study import Arm, Axis, cells, over

DEEP = dataclasses.replace(
    STUDY,
    measure="learning",
    axes=(over("depth", "model.layers.types", ("", "16", "16,16")),),
    seeds=(0,),
)


def found(**numbers: float) -> Found:
    series = {"step": [10.0, 20.0], "accuracy": [0.1, 0.2], "loss": [1.0, 0.5]}
    return [(cell, Result(cell.key, OK, {"accuracy": 0.5, **numbers}, series=series)) for cell in cells(DEEP)]


def said(picture: str) -> str:
    return base64.b64decode(re.findall(r'base64,([^"]*)"', picture)[0]).decode()


@pytest.mark.parametrize(
    ("values", "places"),
    [
        (("1GiB", "64MiB", "32MiB", "0"), [0, 1, 2, 3]),
        (("4 x 32", "16 x 8"), [0, 1]),
        (("100", "10", "0.5"), [100, 10, 0.5]),
    ],
)
def test_where_values_of_an_axis_stand(values: tuple[str, ...], places: list[float]) -> None:
    assert figures.positions(Axis("cache, falling", {value: {} for value in values})) == places


def test_numbers_at_a_picture_stay_whole() -> None:
    """Points lose digits that nobody sees; a tick at 0.025 is not one at 0.02."""
    axis = over("learning rate", "optimizer.learning_rate", ("0.001", "0.0025"))
    study = dataclasses.replace(DEEP, axes=(axis,))
    measured = [(cell, Result(cell.key, OK, {"accuracy": 0.5})) for cell in cells(study)]
    picture = said(figures.panels(study, measured, axis, [("accuracy", "accuracy")])[0])
    assert ">0.0025</text>" in picture
    assert not re.search(r"\d\.\d{3}[^<]*[ \n]L", picture)


def test_a_page_of_the_input_has_what_its_limits_are_read_from() -> None:
    study = dataclasses.replace(STUDY, measure="streaming", arms=(Arm("near"),), seeds=(0,))
    told = page([(study, [(cell, Result(cell.key, OK, {"ratio": 0.6})) for cell in cells(study)])])
    assert "near stops at 10 (input: 0.60 of the speed from disk), the smallest value that was tried" in told
    assert "<b>0.60</b>" in told


def test_layers_from_the_image_to_the_head() -> None:
    numbers = {
        f"gradients/{name}_{when}": 1.0
        for name in ("stem/conv_0", "stem/norm_0", "primary", "layer_0", "class_capsules", "decoder/hidden_0")
        for when in ("first", "last")
    }
    assert runs.layers(Point("", (Result("", OK, numbers),))) == ["stem/conv_0", "primary", "layer_0", "class_capsules"]
    picture = said(runs.gradients(DEEP, found(**numbers)))
    assert all(f">{name}</text>" in picture for name in ("conv_0", "primary", "layer_0", "head"))
    assert "norm_0" not in picture


def test_the_page_draws_the_health_of_routing_and_the_ends_of_depth() -> None:
    told = page([(DEEP, found(gradient_stem_first=2.0, **{"class_capsules/always_on_parents_last": 0.0}))])
    assert "gradient at the first convolution, start over depth" in told
    assert "training accuracy over steps at depth = 16,16" in told
    assert "0 wherever it was measured: share of class capsules always on." in told
    assert "share of class capsules always on over depth" not in told  # a picture of nothing


def test_the_model_of_many_ranks_says_what_it_assumes(tmp_path: Path) -> None:
    study = dataclasses.replace(STUDY, measure="ranks", fields={"train.threads": "1"})
    numbers = {
        "step_seconds": 0.2,
        "floor_seconds": 0.1,
        "multiply_adds": 1e9,
        "forward_seconds": 1.0,
        "gradient_seconds": 4.0,
        "gradient_bytes": 1e8,
    }
    measured = [(cell, Result(cell.key, OK, numbers)) for cell in cells(study)]
    samples = [{"bytes": size, "seconds": 0.004 + size / 1e8, "low": 0.0, "high": 0.0} for size in (1_000, 10_000_000)]
    content = {"runs": [{"ranks": 2, "rate": "1gbit", "rounds": 3, "samples": samples}]}
    (tmp_path / scaling.FILE).write_text(json.dumps(content))
    told = scaling.section(study, measured, tmp_path, print)
    # twice the products: 2 * 3 * 1e9 multiply-adds at 10 tera a second, of a batch of 128
    assert "a step of 0.60 ms on one GPU, 213,333 images/s, 0.75 of it the backward pass" in told
    assert "<th>1 GPU</th><th>8 GPUs</th>" in told
    assert '<td class="n">0.60 ms, 100 %</td>' in told
    assert "25 Gbit/s, and 4.0 ms an allreduce" in told
    assert "<td>Inception V3</td><td>142</td><td>64</td>" in told
    assert "0.67 of a step is its backward pass" in told
    assert "was not held to a core" in told.replace("\n", " ")
    assert "H100" not in told
    ranks = studies.load("ranks")
    measured = [(cell, Result(cell.key, OK, numbers)) for cell in cells(ranks)]
    told = scaling.section(ranks, measured, tmp_path, print)
    assert told.count("One H100 that was tried since took") == 2  # dynamic, convolutions
    assert "5.61 ms for a step of this network at a batch of 128" in told
    assert "22,816 images/s" in told
    assert '<td class="n">5.61 ms, 100 %</td>' in told
