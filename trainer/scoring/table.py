"""A report as a table for a terminal of 80 columns. Without TensorFlow."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from trainer.scoring.report import ClassScore, Report

COLUMNS = 80
ROWS = 20
"""Classes that are listed; of more, those with the lowest and the highest recall."""
MATRIX_CLASSES = 10
"""With more classes the confusion matrix is too wide."""
NAME = 30
KEY = 15
TITLES = {
    "test": "the test set as it is",
    "affine": "the test set under affine maps",
    "overlap": "pairs: a record under one of another class",
}


def title(found: Report) -> str:
    return f"== {TITLES[found.subject.test]}: {found.subject.data}, split {found.subject.split}"


def lines(found: Report) -> list[str]:
    """What a person reads of one test set."""
    what = "records" if found.subject.objects == 1 else "pairs, both found"
    said = [
        f"test accuracy: {100 * found.accuracy:.2f} % of {found.records} {what}, "
        f"95 % interval {100 * found.low:.2f} to {100 * found.high:.2f}"
    ]
    if found.top5 is not None:
        said.append(f"{'top 5:':{KEY}}{100 * found.top5:.2f} %")
    terms = "" if len(found.terms) < 2 else f" ({', '.join(f'{n} {v:.4f}' for n, v in found.terms.items())})"
    said.append(f"{'loss:':{KEY}}{found.loss:.4f}{terms}")
    if found.calibration_error is not None:
        text = f"error {100 * found.calibration_error:.2f} % over {calibrated(found)}"
        said += textwrap.wrap(f"{'calibration:':{KEY}}{text}", COLUMNS, subsequent_indent=" " * KEY)
    if found.lead is not None:
        said.append(f"{'lead:':{KEY}}{found.lead:.4f}, the right class's score less the best of the others")
    said += ["", *_classes(found.classes)]
    if 0 < len(found.confusion) <= MATRIX_CLASSES:
        said += ["", *_matrix(found)]
    if found.confusions:
        said += ["", "most often taken for another:"]
        said += [f"  {c.right[:NAME]} for {c.found[:NAME]}: {c.records} of {c.of}" for c in found.confusions]
    return said


def calibrated(found: Report) -> str:
    """Over which bins of what the calibration error is a mean."""
    return f"{len(found.bins)} equal bins of confidence, which is {found.subject.confidence}"


def _classes(classes: Sequence[ClassScore]) -> Iterator[str]:
    width = min(NAME, max(len(each.name) for each in classes))
    yield f"{'class':{width}}  records  recall %  precision %"
    if len(classes) <= ROWS:
        yield from (_row(each, width) for each in classes)
        return
    order = sorted((each for each in classes if each.records), key=lambda each: each.recall or 0.0)
    half, others = ROWS // 2, max(len(order) - ROWS, 0)
    absent = f", {len(classes) - len(order)} without records" if len(order) < len(classes) else ""
    yield from (_row(each, width) for each in order[:half])
    yield f"... {others} between{absent}; --json has all ..."
    yield from (_row(each, width) for each in order[half:][-half:])


def _row(each: ClassScore, width: int) -> str:
    recall, precision = ("-" if share is None else f"{100 * share:.1f}" for share in (each.recall, each.precision))
    return f"{each.name[:width]:{width}}  {each.records:7d}  {recall:>8}  {precision:>11}"


def _matrix(found: Report) -> Iterator[str]:
    largest = max(map(max, found.confusion))
    cell = max(3, len(str(largest)) + 1)
    names = [each.name for each in found.classes]
    width = min(max(map(len, names)), COLUMNS - 4 - cell * len(names))
    yield "confusion: rows are the right classes, columns what was found"
    yield " " * (width + 4) + "".join(f"{number:{cell}d}" for number in range(len(names)))
    for number, (name, row) in enumerate(zip(names, found.confusion, strict=True)):
        counts = "".join(f"{count or '.':>{cell}}" for count in row)
        yield f"{number:2d}  {name[:width]:{width}}{counts}"
