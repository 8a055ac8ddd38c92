from __future__ import annotations

from tests.unit.probe.test_study import STUDY
from trainer.probe import todo
from trainer.probe.records import ERROR, KILLED, MEMORY, OK, TIME, Known, Result
from trainer.probe.study import cells

EVERY = cells(STUDY)
KEYS = [cell.key for cell in EVERY]


def key(value: str, arm: str = "a", seed: int = 0) -> str:
    return f"{arm}/parents={value}/seed{seed}"


def left(**known: object) -> list[str]:
    whole = Known(**{"started": {}, "results": {}, **known})  # type: ignore[arg-type]
    return [cell.key for cell in todo.left(STUDY, EVERY, whole, EVERY)]


def test_what_has_a_result_is_not_measured_again() -> None:
    assert left() == KEYS
    assert left(results={KEYS[0]: Result(KEYS[0], OK)}) == KEYS[1:]


def test_a_start_without_a_result_is_tried_once_more() -> None:
    assert left(started={KEYS[0]: 1}) == KEYS
    assert left(started={KEYS[0]: 2}) == KEYS[1:]
    [result] = todo.killed(EVERY, Known({KEYS[0]: 2, KEYS[1]: 1}, {}))
    assert (result.cell, result.outcome) == (KEYS[0], KILLED)
    assert not todo.killed(EVERY, Known({KEYS[0]: 2}, {KEYS[0]: Result(KEYS[0], OK)}))


def test_beyond_a_proven_limit_of_memory_the_same_arm_is_not_measured() -> None:
    results = {key("40"): Result(key("40"), MEMORY)}
    skipped = set(KEYS) - set(left(results=results)) - set(results)
    assert skipped == {key("80"), key("80", seed=1)}
    assert left(results={key("40"): Result(key("40"), "out of time")}) == [each for each in KEYS if each != key("40")]


def test_a_limit_that_another_machine_met_is_one_for_all() -> None:
    known = Known({}, {key("40"): Result(key("40"), MEMORY)})
    mine = [cell for cell in EVERY if cell.value == "80"]
    assert [cell.key for cell in todo.left(STUDY, mine, known, EVERY)] == [key("80", "b"), key("80", "b", 1)]


def test_what_failed_was_killed_or_an_error() -> None:
    ended = {KEYS[at]: Result(KEYS[at], outcome) for at, outcome in enumerate((OK, KILLED, ERROR, MEMORY, TIME))}
    known = Known({KEYS[0]: 2, KEYS[5]: 2, KEYS[6]: 1}, ended)
    assert [cell.key for cell in todo.failed(EVERY, known)] == [KEYS[1], KEYS[2], KEYS[5]]
