import pytest

from trainer.launch.verdicts import Rank, Verdict, final_code, suspects
from trainer.launch.wire import Mark


def rank(number: int, phase: str, step: int, waits: bool = False) -> Rank:
    return Rank(number, "host", 1, None, 0.0, 0.0, Mark(phase, step, waits))


def numbers(ranks: list[Rank]) -> list[int]:
    return [found.number for found in suspects(ranks)]


def test_the_rank_outside_the_collective_is_the_suspect() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "input", 7), rank(2, "training", 7, True)]) == [1]


def test_the_rank_furthest_behind_is_the_suspect() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "training", 6, True)]) == [1]
    assert numbers([rank(0, "evaluating", 7), rank(1, "input", 6)]) == [1]


def test_ranks_in_the_same_collective_are_all_named() -> None:
    assert numbers([rank(0, "training", 7, True), rank(1, "training", 7, True)]) == [0, 1]


@pytest.mark.parametrize(
    ("verdicts", "stopping", "ended", "code", "cause"),
    [
        ([(0, 0, ""), (1, 0, "")], False, "", 0, ""),
        ([(1, 2, "bad record"), (0, 75, "lost")], False, "", 2, "bad record"),
        ([(0, 75, "lost"), (1, 2, "bad record")], False, "rank 1 died", 2, "bad record"),
        ([(1, 3, "short"), (0, 3, "long")], False, "", 3, "long"),
        ([(0, 75, "stopped"), (1, 75, "also")], True, "", 75, "stopped"),
        ([(0, 0, "")], False, "rank 1 ended without a word", 75, "rank 1 ended without a word"),
        ([(0, 0, "")], False, "", 75, "the ranks ended without saying why"),
        ([], True, "", 75, "stopped on request"),
        ([(0, 0, ""), (1, 0, "")], True, "stopped at once", 0, ""),
        ([(0, 1, "ValueError")], False, "", 1, "ValueError"),
    ],
)
def test_the_first_cause_is_the_verdict(
    verdicts: list[tuple[int, int, str]], stopping: bool, ended: str, code: int, cause: str
) -> None:
    assert final_code([Verdict(*verdict) for verdict in verdicts], 2, stopping, ended) == (code, cause)
