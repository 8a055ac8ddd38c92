"""The studies that come with the package: what their axes promise."""

from __future__ import annotations

import csv
import math
import shlex
from pathlib import Path

import pytest

from trainer import cli, cli_probe
from trainer.model import costs
from trainer.probe import studies
from trainer.probe.records import OK, Result
from trainer.probe.report import tables
from trainer.probe.streamed_set import checked
from trainer.probe.studies.arms import CONTROLS, DEEP_RATES, RATES, REMEDIES, ROUTINGS, TRANSFORM_RATES, TRANSFORMS
from trainer.probe.study import CENTRE, Changes, Study, cells, centre_of, config_of, split

RESULTS = Path(__file__).parents[3] / "docs" / "probes"


@pytest.mark.parametrize("name", studies.names())
def test_sizes_of_every_cell_fit_and_every_axis_passes_through_the_centre(name: str) -> None:
    study = studies.load(name)
    assert study.name == name
    for cell in cells(study):
        config_of(study, cell)
    assert all(centre_of(study, axis) for axis in study.axes)


def asked_for(options: str) -> Study:
    """A study as 'capsnet probe run' makes it."""
    return cli_probe._limited(studies.load("smoke"), cli._parsed(["probe", "run", "smoke", *shlex.split(options)]))


@pytest.mark.parametrize(
    "options",
    ["", " --memory 2500", " --data 'gs://b/two words' --seconds 90.5 --axis parents --axis children"],
)
def test_a_page_has_the_options_that_its_study_was_run_with(options: str) -> None:
    study = asked_for(options)
    told = studies.options(study, axes=True)
    assert told == options
    assert asked_for(told) == study
    page = tables.every_cell(study, [(cells(study)[0], Result(cells(study)[0].key, OK))])
    of_a_cell = options.partition(" --axis")[0].replace("'", "&#x27;")
    assert f"<code>capsnet probe cell smoke dynamic/centre/seed0{of_a_cell}</code>" in page
    assert f"capsnet probe run smoke{options} --output DIR".replace("'", "&#x27;") in page


def by_value(study: Study, axis_name: str, arm: str) -> dict[str, costs.Cost]:
    axis = next(axis for axis in study.axes if axis.name == axis_name)
    middle = centre_of(study, axis)
    found = {}
    for cell in cells(study):
        if cell.arm == arm and cell.seed == study.seeds[0] and cell.axis in (axis_name, CENTRE):
            found[cell.value or middle] = costs.costs(config_of(study, cell).model).total
    return {value: found[value] for value in axis.values}


def test_children_at_equal_parameters_have_equal_parameters() -> None:
    study = studies.load("learning")
    for arm in ("dynamic", "uniform", "sharp", "random"):
        counts = {cost.parameters for cost in by_value(study, "children at equal parameters", arm).values()}
        assert len(counts) == 1, (arm, counts)


@pytest.mark.parametrize("axis", ["depth", "depth, residual"])
def test_depth_adds_capsule_layers(axis: str) -> None:
    study = studies.load("learning")
    for cell in cells(study):
        if cell.axis == axis:
            layers = config_of(study, cell).model.layers
            assert 1 + len(layers.types) == int(cell.value)
            assert layers.residual == (axis == "depth, residual")
    counts = [cost.parameters for cost in by_value(study, axis, "dynamic").values()]
    assert counts == sorted(set(counts))


def test_a_finer_grain_of_labels_is_more_parents_and_nothing_else() -> None:
    study = studies.load("learning")
    centre = next(cell for cell in cells(study) if cell.axis == CENTRE)
    for cell in cells(study):
        if cell.axis == "parents" and (cell.arm, cell.seed) == (centre.arm, centre.seed):
            config = config_of(study, cell)
            assert config.model.classes == 10 * config.data.rotations == int(cell.value)
            changed = {name for name, value in cell.fields.items() if centre.fields.get(name) != value}
            assert changed == {"data.rotations", "model.classes"}


def test_settings_of_a_measure_are_no_fields() -> None:
    fields, settings = split({"train.epochs": "1", "probe.ranks": "2"})
    assert (fields, settings) == ({"train.epochs": "1"}, {"ranks": "2"})
    study = studies.load("ranks")
    ranks = {(cell.axis, cell.value): split(cell.fields)[1]["ranks"] for cell in cells(study)}
    assert ranks == {(CENTRE, ""): "1", ("ranks, strong", "2"): "2", ("ranks, weak", "2"): "2"}


@pytest.mark.parametrize(
    ("name", "chosen", "arms"),
    [
        ("rates", RATES, ROUTINGS),
        ("rates_deep", DEEP_RATES, REMEDIES),
        ("rates_transforms", TRANSFORM_RATES, TRANSFORMS),
    ],
)
def test_every_arm_has_the_learning_rate_that_was_best_in_the_search(
    name: str, chosen: dict[str, str], arms: dict[str, Changes]
) -> None:
    search = studies.load(name)
    (axis,) = search.axes
    rates: dict[str, dict[str, float]] = {}
    with (RESULTS / name / "cells.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["outcome"] == "ok", row
            rate = row["value"] or centre_of(search, axis)
            rates.setdefault(row["arm"], {})[rate] = float(row["train_accuracy"])
    assert set(rates) == set(chosen) == set(arms)
    assert set(CONTROLS) <= {*ROUTINGS, *TRANSFORMS}
    for arm, found in rates.items():
        assert set(found) == set(axis.values)
        assert max(found, key=lambda rate: found[rate]) == chosen[arm], (arm, found)
        assert all(map(math.isfinite, found.values()))


def test_each_axis_of_the_data_study_changes_one_thing() -> None:
    study = studies.load("data")
    centres = {cell.arm: cell.fields for cell in cells(study) if cell.axis == CENTRE}
    for cell in cells(study):
        changed = {name for name, value in cell.fields.items() if centres[cell.arm].get(name) != value}
        assert len(changed) == (cell.axis != CENTRE), cell.key
        checked(split(cell.fields)[1])
