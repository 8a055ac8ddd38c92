"""A report as a table for a terminal of 80 columns. Without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config import LossConfig
from trainer.scoring.report import ClassScore, Report

ROWS = 20
"""Classes that are listed; of more, those with the highest and the lowest recall."""
NAME = 30


def lines(found: Report, loss: LossConfig) -> list[str]:
    """What a person reads of one test set."""
    what = "records" if found.objects == 1 else "pairs, both found"
    said = [
        f"test accuracy: {100 * found.accuracy:.2f} % of {found.records} {what}, "
        f"95 % interval {100 * found.low:.2f} to {100 * found.high:.2f}"
    ]
    if found.top5 is not None:
        said.append(f"top 5:         {100 * found.top5:.2f} %")
    terms = "" if len(found.terms) < 2 else f" ({', '.join(f'{n} {v:.4f}' for n, v in found.terms.items())})"
    said.append(f"loss:          {found.loss:.4f}{terms}")
    if found.calibration_error is not None:
        said.append(f"calibration:   error {100 * found.calibration_error:.2f} %, confidence being {meaning(loss)}")
    said += ["", *_classes(found.classes)]
    if found.confusions:
        said += ["", "most often taken for another:"]
        said += [f"  {c.right[:NAME]} for {c.found[:NAME]}: {c.records}" for c in found.confusions]
    return said


def meaning(loss: LossConfig) -> str:
    """What counts as confidence; see ``counts.confidence``."""
    return {
        "cross_entropy": f"softmax({loss.scale:g} x score)",
        "nll": "a score's share of their sum",
    }.get(loss.kind, "the largest activation")


def _classes(classes: Sequence[ClassScore]) -> list[str]:
    width = min(NAME, max(len(each.name) for each in classes))
    head = f"{'class':{width}}  records  recall %  precision %"
    if len(classes) <= ROWS:
        return [head, *(_row(each, width) for each in classes)]
    order = sorted(classes, key=lambda each: -1.0 if each.recall is None else each.recall)
    half = ROWS // 2
    rest = f"... {len(classes) - 2 * half} others; --json has all"
    return [head, *(_row(c, width) for c in order[: -half - 1 : -1]), rest, *(_row(c, width) for c in order[:half])]


def _row(each: ClassScore, width: int) -> str:
    recall, precision = ("-" if share is None else f"{100 * share:.1f}" for share in (each.recall, each.precision))
    return f"{each.name[:width]:{width}}  {each.records:7d}  {recall:>8}  {precision:>11}"
