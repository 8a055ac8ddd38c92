"""The CSV, read back with the library's reader. Axes: J classes."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from trainer.predict import rows
from trainer.predict.rows import PLACES, Table

CLASSES = ("ant", 'bee, "big"', "cat", "dog")
SCORES_J = np.array([0.1, 0.7, 0.25, 0.7], np.float32)


def written(table: Table, *found: list[str]) -> list[dict[str, str]]:
    stream = io.StringIO()
    rows.write(stream, [table.head(), *found])
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_the_two_longest_and_their_scores() -> None:
    table = Table(CLASSES, 2, scores=False)
    assert table.head() == ["file", "label", "score", "second", "second_score", "error"]
    (row,) = written(table, table.row("a, b.png", SCORES_J))
    assert row == {
        "file": "a, b.png",
        "label": 'bee, "big"',  # of equal scores the first
        "score": "0.7",
        "second": "dog",
        "second_score": "0.7",
        "error": "",
    }


def test_a_column_for_each_class_holds_all_of_a_float32() -> None:
    table = Table(CLASSES, 1, scores=True)
    scores_J = np.random.default_rng(0).random(4, np.float32)
    (row,) = written(table, table.row("x.png", scores_J))
    assert list(row) == ["file", "label", "score", "error", *CLASSES]
    np.testing.assert_array_equal(np.float32([float(row[name]) for name in CLASSES]), scores_J)


@pytest.mark.parametrize("scores", [False, True])
def test_an_error_is_a_row_as_long_as_the_others(scores: bool) -> None:
    table = Table(CLASSES, 3, scores)
    good, bad = table.row("x.png", SCORES_J), table.error("y.png", "empty")
    assert len(good) == len(bad) == len(table.head())
    row = written(table, bad)[0]
    assert (row["file"], row["error"], row["label"], row["third_score"]) == ("y.png", "empty", "", "")


def test_each_place_has_its_own_columns() -> None:
    columns = [column for place in PLACES for column in place]
    assert len(set(columns)) == len(columns) == 40
    assert columns[:2] == ["label", "score"]
    assert columns[10:12] == ["6th", "6th_score"]
