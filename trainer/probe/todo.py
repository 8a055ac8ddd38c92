"""What is left of a study, from the records alone: Ctrl-C, kill -9 and lost pods cost the cell in flight at most."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.probe.records import KILLED, MEMORY, Known, Result
from trainer.probe.study import CENTRE, Cell, Study

TRIES = 2
"""A cell that was started so often and never came to a result is recorded as killed."""


def left(study: Study, cells: Sequence[Cell], known: Known) -> list[Cell]:
    """Cells to measure, in their order."""
    return [
        cell
        for cell in cells
        if cell.key not in known.results
        and known.started.get(cell.key, 0) < TRIES
        and not beyond(study, cell, cells, known)
    ]


def killed(cells: Sequence[Cell], known: Known) -> list[Result]:
    """Results for cells that were started as often as they may be, and have none."""
    return [
        Result(
            cell.key, KILLED, why=f"started {TRIES} times, and neither time did a result come", fields=dict(cell.fields)
        )
        for cell in cells
        if cell.key not in known.results and known.started.get(cell.key, 0) >= TRIES
    ]


def beyond(study: Study, cell: Cell, cells: Sequence[Cell], known: Known) -> str:
    """The key of a smaller cell of the same axis and arm that ran out of memory; '' where there is none."""
    if cell.axis == CENTRE:
        return ""
    values = next(axis.values for axis in study.axes if axis.name == cell.axis)
    smaller = values[: values.index(cell.value)]
    for other in cells:
        result = known.results.get(other.key)
        same = (other.axis, other.arm) == (cell.axis, cell.arm)
        if same and other.value in smaller and result is not None and result.outcome == MEMORY:
            return other.key
    return ""
