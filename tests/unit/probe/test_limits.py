from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.probe.test_study import STUDY
from trainer.probe import limits
from trainer.probe.records import COLLAPSED, ERROR, MEMORY, OK, Result
from trainer.probe.report.page import page as page_of
from trainer.probe.study import Arm, Cell, Study, Thresholds, cells

AXIS = STUDY.axes[0]
LEARNING = dataclasses.replace(STUDY, measure="learning")


def measured(outcomes: dict[str, str] | None = None, **steps: float) -> list[tuple[Cell, Result]]:
    """Every cell with a step of 1 s, or that of its arm; ``outcomes`` of arm a by value."""
    found = []
    for cell in cells(STUDY):
        outcome = (outcomes or {}).get(cell.value, OK) if cell.arm == "a" else OK
        numbers = {"step_seconds": steps.get(cell.arm, 1.0), "floor_seconds": 0.5, "reference_seconds": 0.01}
        found.append((cell, Result(cell.key, outcome, numbers)))
    return found


def test_no_limit_is_told_with_how_far_it_was_tried() -> None:
    found = limits.limit(STUDY, measured(), "a", AXIS)
    assert found.sentence == "a, parents: no limit reached up to 80"


@pytest.mark.parametrize(("outcome", "by"), [(MEMORY, "memory"), (COLLAPSED, "collapse")])
def test_the_first_value_that_crosses_is_the_limit(outcome: str, by: str) -> None:
    found = limits.limit(STUDY, measured({"40": outcome, "80": outcome}), "a", AXIS)
    assert (found.reached, found.stopped_at) == ("20", "40")
    assert found.by.startswith(by)


def test_a_step_against_the_controls() -> None:
    found = limits.limit(STUDY, measured(a=11.0), "a", AXIS)
    assert (found.reached, found.stopped_at, found.by) == ("", "10", "time: 11.0 times the control's step")
    assert not limits.limit(STUDY, measured(a=9.0), "a", AXIS).stopped_at


def test_couplings_that_stay_uniform_are_a_limit_of_routing_and_not_of_a_control() -> None:
    found = [(cell, Result(cell.key, OK, {"accuracy": 0.5, "entropy_last": 0.99995})) for cell in cells(LEARNING)]
    assert limits.limit(LEARNING, found, "a", AXIS).by.startswith("routing: couplings of entropy 0.99995")
    assert not limits.limit(LEARNING, found, "b", AXIS).stopped_at


def test_accuracy_below_the_control_counts_beyond_two_standard_errors() -> None:
    def seeds(low: float, high: float) -> list[tuple[Cell, Result]]:
        scores = {("a", 0): low, ("a", 1): high, ("b", 0): 0.90, ("b", 1): 0.90}
        return [(cell, Result(cell.key, OK, {"accuracy": scores[cell.arm, cell.seed]})) for cell in cells(STUDY)]

    assert limits.limit(LEARNING, seeds(0.8595, 0.8605), "a", AXIS).by == "accuracy: 4.0 points below the control"
    assert not limits.limit(LEARNING, seeds(0.82, 0.90), "a", AXIS).stopped_at  # 4 points, of an error of 4
    assert not limits.limit(LEARNING, seeds(0.885, 0.886), "a", AXIS).stopped_at  # 1.5 points


@pytest.mark.parametrize(
    ("low", "control", "told"),
    [
        (0.03, 0.90, "no limit reached up to 40; cannot be judged (one seed) at 80"),
        (0.89, 0.90, "no limit reached up to 80"),
        (0.03, None, "no limit reached up to 40; cannot be judged (no control there) at 80"),
    ],
)
def test_one_seed_or_no_control_is_no_judgement(low: float, control: float | None, told: str) -> None:
    study = dataclasses.replace(LEARNING, seeds=(0,))

    def result(cell: Cell) -> Result:
        score = {"a": low, "b": control}[cell.arm] if cell.value == "80" else 0.9
        return Result(cell.key, "not measured") if score is None else Result(cell.key, OK, {"accuracy": score})

    found = [(cell, result(cell)) for cell in cells(study)]
    assert limits.limit(study, found, "a", AXIS).sentence == f"a, parents: {told}"
    page = page_of([(study, found)])
    assert "not reached up to 80: a" not in page or low > 0.8
    assert ("cannot be judged" in page) == ("judged" in told)


def test_times_are_no_limit_where_none_was_declared() -> None:
    ranks = dataclasses.replace(STUDY, measure="ranks")
    assert limits.limit(STUDY, measured(a=30.1), "a", AXIS).kind == "time"
    assert limits.limit(ranks, measured(a=30.1), "a", AXIS).sentence == "a, parents: no limit reached up to 80"
    page = page_of([(ranks, measured(a=30.1))])
    assert "times the control" not in page


def test_values_that_ended_in_error_or_are_open_are_named() -> None:
    outcomes = {"20": ERROR, "40": "not measured"}
    found = limits.limit(STUDY, measured(outcomes), "a", AXIS)
    told = "no limit reached up to 80; ended in error at 20; not measured at 40"
    assert found.sentence == f"a, parents: {told}"
    page = page_of([(STUDY, measured(outcomes))])
    assert "not reached up to 80: a · b; ended in error at 20: a; not measured at 40: a" in page
    stopped = limits.limit(STUDY, measured({**outcomes, "80": MEMORY}), "a", AXIS)
    assert stopped.sentence.endswith(
        "memory at 80, 10 is within every threshold; ended in error at 20; not measured at 40"
    )


def test_some_seeds_that_ended_in_error_are_named() -> None:
    found = measured()
    at = next(at for at, (cell, _) in enumerate(found) if (cell.arm, cell.value) == ("a", "40"))
    found[at] = (found[at][0], Result(found[at][0].key, ERROR))
    told = limits.limit(STUDY, found, "a", AXIS).sentence
    assert told == "a, parents: no limit reached up to 80; 1 of 2 seeds ended in error at 40"


def test_the_control_of_the_best_accuracy_counts_at_each_value() -> None:
    arms = (Arm("a"), Arm("dies", control=True), Arm("lives", control=True))
    study = dataclasses.replace(LEARNING, arms=arms)

    def accuracy(cell: Cell) -> float:
        return {"a": 0.5, "dies": 0.9 if cell.value != "80" else 0.01, "lives": 0.6}[cell.arm]

    found = [(cell, Result(cell.key, OK, {"accuracy": accuracy(cell)})) for cell in cells(study)]
    best = limits.beside(study, found, "a", AXIS)
    assert [best[value].mean("accuracy") for value in AXIS.values] == [0.9, 0.9, 0.9, 0.6]
    assert limits.limit(study, found, "dies", AXIS).stopped_at == "80"


@pytest.mark.parametrize(
    ("mine", "control", "told"),
    [
        (0.02, 0.03, "no limit reached up to 40; cannot be judged (the control fails there too) at 80"),
        (0.40, 0.03, "no limit reached up to 80"),
        (0.03, 0.40, "accuracy: 37.0 points below the control at 80, 40 is within every threshold"),
    ],
)
def test_what_fails_with_its_control_is_not_judged(mine: float, control: float, told: str) -> None:
    def accuracy(cell: Cell) -> float:  # chance is 0.1 at 10 parents, 0.0125 at 80
        return {"a": mine, "b": control}[cell.arm] if cell.value == "80" else 0.7

    found = [(cell, Result(cell.key, OK, {"accuracy": accuracy(cell)})) for cell in cells(LEARNING)]
    assert limits.limit(LEARNING, found, "a", AXIS).sentence == f"a, parents: {told}"


def test_nothing_measured_is_said() -> None:
    found = [(cell, Result(cell.key, "not measured")) for cell in cells(STUDY)]
    assert limits.limit(STUDY, found, "a", AXIS).sentence == "a, parents: not measured"
    assert "Nothing is measured yet." in page_of([(STUDY, found)])


def test_a_slow_minute_of_the_machine_is_taken_out_by_the_reference() -> None:
    found = measured()
    cell, result = found[3]
    slow = {name: 3 * value for name, value in result.numbers.items()}
    found[3] = (cell, Result(cell.key, OK, slow))
    steps = [result.numbers["step_seconds"] for _, result in limits.at_one_speed(found)]
    assert steps == pytest.approx([1.0] * len(steps), rel=1e-12)  # rounding of a division


def test_cells_on_a_slower_machine_are_named() -> None:
    found = measured()
    assert limits.noisy(found) == []
    cell, result = found[3]
    for seconds, expected in ((0.0124, []), (0.0126, [cell])):
        found[3] = (cell, Result(cell.key, OK, {**result.numbers, "reference_seconds": seconds}))
        assert limits.noisy(found) == expected
    assert limits.noisy([(cell, Result(cell.key, OK))]) == []


def test_a_power_law_is_found_with_its_exponent() -> None:
    xs = [10.0, 30.0, 100.0, 300.0]
    exact = limits.fit(xs, [2 * x**1.5 for x in xs])
    assert exact is not None
    assert exact.exponent == pytest.approx(1.5, abs=1e-9)
    assert exact.half_width < 1e-9
    assert exact.last == pytest.approx(1.5, abs=1e-9)
    ys = np.array([2 * x**1.5 for x in xs]) * np.array([1.1, 0.9, 1.05, 1.0])
    rough = limits.fit(xs, list(ys))
    assert rough is not None
    oracle, covariance = np.polyfit(np.log(xs), np.log(ys), 1, cov="unscaled")
    residuals = np.log(ys) - np.polyval(oracle, np.log(xs))
    error = np.sqrt(covariance[0, 0] * (residuals @ residuals) / 2)
    assert rough.exponent == pytest.approx(oracle[0], rel=1e-9)
    assert rough.half_width == pytest.approx(4.302652729911275 * error, rel=1e-6)  # t of 2 degrees of freedom, tables
    assert rough.last == pytest.approx(np.log(ys[3] / ys[2]) / np.log(3), rel=1e-9)
    assert limits.fit(xs[:2], [1.0, 2.0]) is None


def test_the_page_says_what_it_shows_and_needs_nothing_else() -> None:
    page = page_of([(STUDY, measured({"40": MEMORY}))])
    assert "a stops at 40 (memory)" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    for cell in cells(STUDY):
        assert cell.key in page


def test_the_page_names_cells_whose_times_are_rough() -> None:
    found = measured()
    assert "is rough" not in page_of([(STUDY, found)])
    cell, result = found[3]
    found[3] = (cell, Result(cell.key, OK, {**result.numbers, "reference_seconds": 1.0}))
    page = page_of([(STUDY, found)])
    assert f"which is rough: {cell.key}. " in page
    assert page.count("&asymp; ") == 1  # in the table that the limit is read from
    assert "The centre stands on every axis" not in page
    cell, result = found[0]
    found[0] = (cell, Result(cell.key, OK, {**result.numbers, "reference_seconds": 1.0}))
    assert "so that every one has rough times of a. " in page_of([(STUDY, found)])


def test_several_studies_on_one_page() -> None:
    other = dataclasses.replace(STUDY, name="other")
    page = page_of([(STUDY, measured()), (other, measured({"20": MEMORY}))])
    assert page.count("<h2") == 2
    assert "1 of 1 pair of an arm with routing and an axis reach a limit before the axis ends; " in page
    assert "none of 1 pair of an arm with routing and an axis reach a limit before the axis ends." in page
    assert "1 of 2 pairs of an arm with routing and an axis reach a limit, and 0 of 2 pairs of a control" in page
    assert "Memory comes first on parents in other (1 of 1, at 20)." in page


@pytest.mark.parametrize(("study", "told"), [(STUDY, False), (LEARNING, True)])
def test_rules_that_came_after_the_published_study_are_told_as_such(study: Study, told: bool) -> None:
    page = page_of([(study, measured())])
    assert "These numbers stand in study.json, which is written before the first cell." in page
    assert ("Three rules of this page are younger" in page) == told


def test_the_evidence_stands_under_a_sentence() -> None:
    scores = {"a": 0.5, "b": 0.9}
    found = [
        (cell, Result(cell.key, OK, {"accuracy": scores[cell.arm] + 0.01 * cell.seed})) for cell in cells(LEARNING)
    ]
    page = page_of([(LEARNING, found)])
    link = page.index('<a href="#try-0">')
    assert link < page.index('<h3 id="try-0">') < page.index("<b>50.5 &pm; 0.5 (-40.0 &pm; 0.7)</b>")


def test_an_arm_that_an_axis_is_not_varied_for_stands_at_the_centre() -> None:
    axis = dataclasses.replace(AXIS, arms=("a",))
    study = dataclasses.replace(STUDY, axes=(axis,))
    found = [(cell, Result(cell.key, OK, {"step_seconds": 6.0 if cell.value else 1.0})) for cell in cells(study)]
    assert {cell.axis for cell, _ in found if cell.arm == "b"} == {"centre"}
    assert [point.mean("step_seconds") for point in limits.curve(study, found, "b", axis)] == [1.0] * 4
    strict = dataclasses.replace(study, thresholds=Thresholds(step_ratio=5))
    assert limits.limit(strict, found, "a", axis).by == "time: 6.0 times the control's step"


def test_gradients_that_do_not_arrive_or_explode_are_a_limit() -> None:
    def with_share(share: float) -> list[tuple[Cell, Result]]:
        return [
            (cell, Result(cell.key, OK, {"gradient_stem_last": share if cell.arm == "a" else 1.0}))
            for cell in cells(LEARNING)
        ]

    assert limits.limit(LEARNING, with_share(0.009), "a", AXIS).kind == "gradients"
    assert not limits.limit(LEARNING, with_share(0.011), "a", AXIS).stopped_at
    assert limits.limit(LEARNING, with_share(101), "a", AXIS).kind == "gradients"
    assert not limits.limit(LEARNING, with_share(99), "a", AXIS).stopped_at


@pytest.mark.parametrize(("mine", "control", "stopped"), [(0.0, 1.0, True), (1.0, 0.0, True), (0.0, 0.0, False)])
def test_gradients_of_nothing(mine: float, control: float, stopped: bool) -> None:
    found = [
        (cell, Result(cell.key, OK, {"gradient_stem_last": mine if cell.arm == "a" else control}))
        for cell in cells(LEARNING)
    ]
    assert bool(limits.limit(LEARNING, found, "a", AXIS).stopped_at) == stopped


def test_all_that_is_crossed_at_the_first_such_value_is_said() -> None:
    found = [
        (cell, Result(cell.key, OK, {"accuracy": 0.5 if cell.arm == "a" else 0.6, "entropy_last": 0.99999}))
        for cell in cells(LEARNING)
    ]
    limit = limits.limit(LEARNING, found, "a", AXIS)
    assert limit.kind == "accuracy"
    assert (
        limit.by
        == "accuracy: 10.0 points below the control; routing: couplings of entropy 0.99999 of that of uniform ones"
    )


@pytest.mark.parametrize(
    ("value", "number"),
    [("16 x 8", 16.0), ("0.005", 0.005), ("28", 28.0), ("1GiB", 2**30), ("64MiB", 2**26), ("0", 0.0)],
)
def test_the_number_of_an_axis_value(value: str, number: float) -> None:
    assert limits.number(value) == number
