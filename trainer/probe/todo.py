"""What is left of a study, from the records alone: Ctrl-C, kill -9 and lost pods cost the cell in flight at most."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.probe.records import ERROR, KILLED, MEMORY, Known, Result
from trainer.probe.study import CENTRE, Cell, Study

TRIES = 2
"""A cell that was started so often and never came to a result is recorded as killed."""


def left(study: Study, cells: Sequence[Cell], known: Known, every: Sequence[Cell]) -> list[Cell]:
    """Those of ``cells`` to measure, in their order. ``every``: all of the study, whose limits others may have met."""
    return [
        cell
        for cell in cells
        if cell.key not in known.results
        and known.started.get(cell.key, 0) < TRIES
        and not beyond(study, cell, every, known)
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


def failed(cells: Sequence[Cell], known: Known) -> list[Cell]:
    """Cells that say nothing of what was to be measured: killed, started as often as they may be, or an error."""
    killed_now = {result.cell for result in killed(cells, known)}
    ended = {key for key, result in known.results.items() if result.outcome in (KILLED, ERROR)}
    return [cell for cell in cells if cell.key in ended | killed_now]


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
