from __future__ import annotations

import dataclasses

import pytest

from trainer.errors import ConfigError
from trainer.probe import studies
from trainer.probe.study import (
    CENTRE,
    Arm,
    Budget,
    Study,
    cells,
    centre_of,
    coarse_to_fine,
    config_of,
    fingerprint,
    joined,
    over,
)

STUDY = Study(
    name="try",
    about="",
    measure="cost",
    recipe="quick",
    budget=Budget(10, 1000),
    arms=(Arm("a"), Arm("b", {"model.routing.algorithm": "uniform"}, control=True)),
    axes=(over("parents", "model.classes", ("10", "20", "40", "80")),),
    seeds=(0, 1),
)


def test_every_value_of_every_arm_and_seed_once_and_the_centre_once() -> None:
    keys = [cell.key for cell in cells(STUDY)]
    assert len(keys) == len(set(keys)) == 2 * 2 * 4
    assert centre_of(STUDY, STUDY.axes[0]) == "10"
    assert not [key for key in keys if "parents=10" in key]


def test_the_picture_exists_early() -> None:
    order = [(cell.seed, cell.value) for cell in cells(STUDY)]
    assert order[:4] == [(0, ""), (0, ""), (0, "80"), (0, "80")]
    assert [seed for seed, _ in order] == sorted(seed for seed, _ in order)


@pytest.mark.parametrize("count", range(1, 12))
def test_coarse_to_fine_is_an_order_of_all_that_begins_with_the_ends(count: int) -> None:
    values = tuple(map(str, range(count)))
    order = coarse_to_fine(values)
    assert sorted(order, key=int) == list(values)
    assert order[:2] == [values[-1], values[0]][:count]


def test_fields_of_axis_arm_and_study_are_laid_over_each_other() -> None:
    [cell] = [each for each in cells(STUDY) if (each.arm, each.value, each.seed) == ("b", "40", 1)]
    config = config_of(STUDY, cell)
    assert (config.model.classes, config.model.routing.algorithm, config.seed) == (40, "uniform", 1)


def test_an_empty_grid_is_refused() -> None:
    for empty in ({"arms": ()}, {"seeds": ()}, {"axes": (over("x", "seed", ()),)}):
        with pytest.raises(ConfigError, match="no values"):
            cells(dataclasses.replace(STUDY, **empty))


def test_another_declaration_is_another_study() -> None:
    assert fingerprint(STUDY) == fingerprint(dataclasses.replace(STUDY))
    assert fingerprint(STUDY) != fingerprint(dataclasses.replace(STUDY, budget=Budget(11, 1000)))


def test_studies_that_differ_in_their_axes_alone_are_one() -> None:
    more = over("children", "model.primary.types", ("4", "16"))
    both = dataclasses.replace(STUDY, axes=(more, *STUDY.axes))
    some = dataclasses.replace(STUDY, axes=(more,))
    assert joined(STUDY, STUDY) == STUDY
    assert joined(STUDY, both) == joined(both, STUDY) == joined(some, both) == both
    whole = joined(STUDY, some)
    assert whole is not None
    assert {axis.name for axis in whole.axes} == {"parents", "children"}
    other = over("parents", "model.classes", ("10", "20"))
    assert joined(STUDY, dataclasses.replace(STUDY, axes=(other,))) is None
    assert joined(STUDY, dataclasses.replace(some, budget=Budget(11, 1000))) is None


@pytest.mark.parametrize("name", studies.names())
def test_the_centre_of_every_shipped_study_fits(name: str) -> None:
    study = studies.load(name)
    for cell in cells(study):
        if cell.axis == CENTRE:
            config_of(study, cell)
    assert any(arm.control for arm in study.arms) or study.measure == "streaming"  # which has the disk beside each cell


def test_an_unknown_study_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown study none; there are .*smoke"):
        studies.load("none")
