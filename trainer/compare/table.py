"""The results as text: two tables within 80 columns, the same in Markdown, and notes that belong to both."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from trainer.compare.plan import Comparison
from trainer.compare.results import Arm
from trainer.intervals import Interval

COLUMNS = 80
TITLES = {"test": "test %", "affine": "affine %", "overlap": "overlap %"}

Rows = list[list[str]]


def scores(arms: Sequence[Arm], sets: Sequence[str]) -> Rows:
    """Accuracies by arm, the first row is the head."""
    return [["arm", *(TITLES[name] for name in sets)], *([arm.name, *(_score(arm, n) for n in sets)] for arm in arms)]


def _score(arm: Arm, name: str) -> str:
    found = arm.scores.get(name)
    if found is None:
        return "diverged" if arm.diverged.get(name) else "-"
    return shown(found)


def shown(score: Interval) -> str:
    """As 90.02 [89.1, 90.9]."""
    high = f"{100 * score.high:.1f}".replace("100.0", "100")  # three such columns fit a terminal
    return f"{100 * score.mean:.2f} [{100 * score.low:.1f}, {high}]"


def gains(arms: Sequence[Arm], sets: Sequence[str]) -> Rows | None:
    """What each arm has more than the first, as +1.15 ± 0.35; None where no arm has seeds to compare."""
    first, *others = arms
    if not any(arm.gains for arm in others):
        return None
    head = [f"minus {first.name}", *(TITLES[name] for name in sets)]
    return [head, *([arm.name, *(_gain(arm.gains.get(name)) for name in sets)] for arm in others)]


def _gain(found: Interval | None) -> str:
    return "-" if found is None else f"{100 * found.mean:+.2f} ± {50 * (found.high - found.low):.2f}"


def costs(arms: Sequence[Arm]) -> Rows:
    """What each arm costs, the first row is the head."""
    head = ["arm", "parameters", "mult-adds", "images/s", "ratio", "memory MiB"]
    return [
        head,
        *(
            [
                arm.name,
                f"{arm.parameters:,}",
                millions(arm.multiply_adds),
                _number(arm.images_per_second, ",.0f"),
                _number(arm.speed_ratio, ".2f"),
                _number(arm.peak_memory_mib, ",.0f"),
            ]
            for arm in arms
        ),
    ]


def millions(count: int) -> str:
    """To three digits: a count of operations has no more that mean anything."""
    return f"{count / 1e6:,.{max(0, 2 - len(str(count // 10**6)) + 1)}f} M"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def aligned(rows: Rows) -> str:
    """For a terminal: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Rows) -> str:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def notes(comparison: Comparison, arms: Sequence[Arm], test_records: int, steps: int) -> list[str]:
    """What a reader must know, a paragraph each."""
    said = [
        f"Recipe {comparison.recipe}"
        + "".join(f", {path} {value}" for path, value in comparison.fields.items())
        + f"; every arm: {steps:,} steps, the same batches in the same order for the same seed, "
        + f"seed{'s 0 to ' + str(comparison.seeds - 1) if comparison.seeds > 1 else ' 0'}."
    ]
    kinds = {score.kind for arm in arms for score in arm.scores.values()}
    if "t" in kinds:
        said.append(
            "In brackets: 95 % t interval of the mean over seeds, on one test set. With so few seeds it is wide, and "
            "it knows nothing of other test images."
        )
    if any(arm.gains for arm in arms):
        said.append(
            f"minus {arms[0].name}: the mean difference of runs with the same seed, which begin alike and see the same "
            "batches, and its 95 % t interval. Of many intervals, one in twenty is wrong."
        )
    if "wilson" in kinds:
        said.append(
            f"In brackets: of one seed the 95 % Wilson interval for {test_records:,} test images. It knows nothing of "
            "other seeds."
        )
    said.append(
        "Accuracy of the last step, not of the best. affine: the same network on the test set as 'capsnet evaluate "
        "RUN --affine' transforms it."
        + (
            " overlap: a network of its own, trained and tested on scenes of two things, both must be found; where the "
            "loss is spread, with cross-entropy."
            if comparison.overlap
            else ""
        )
    )
    said.append(
        "Parameters and multiply-adds of a forward pass for one image, decoder included. "
        "images/s: median of the training steps, without compilation and evaluation; on a shared machine only the "
        f"ratio to {arms[0].name} means something. Memory: the peak of the training process, TensorFlow included."
    )
    said += [f"{arm.name}: {_changed(arm)}." for arm in arms if arm.changes or arm.recipe]
    said += [trouble for arm in arms for trouble in arm.troubles]
    return said


def _changed(arm: Arm) -> str:
    if arm.recipe:
        return f"network, loss and optimizer of recipe {arm.recipe}, data and budget as all"
    return ", ".join(f"{path} {here or 'none'} (recipe: {there or 'none'})" for path, there, here in arm.changes)


def as_text(tables: Sequence[Rows], said: Sequence[str]) -> str:
    """For a terminal of 80 columns."""
    folded = [textwrap.fill(note, COLUMNS, subsequent_indent="  ", break_on_hyphens=False) for note in said]
    return "\n\n".join([*map(aligned, tables), "\n".join(folded)])


def as_markdown(title: str, tables: Sequence[Rows], said: Sequence[str]) -> str:
    listed = "\n".join(f"- {note}" for note in said)
    return "\n\n".join([f"# {title}", *map(markdown, tables), listed]) + "\n"
