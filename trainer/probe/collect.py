"""All records of a study as two files for other programs: JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.probe import todo
from trainer.probe.records import FOLDER, STUDY, VERSION, Known, Records, Result
from trainer.probe.study import Arm, Axis, Budget, Cell, Study, Thresholds, cells
from trainer.storage import Location, atomic_write, join, listing, read_bytes

SKIPPED, MISSING = "skipped", "not measured"
LINES = "cells.jsonl"
MEND = "is it what 'capsnet probe run --output' was given?"


def study_of(output: Location) -> Study:
    """The study as it was declared. Raises ConfigError where there is none."""
    place = join(output, STUDY)
    try:
        if STUDY not in listing(output):
            raise ConfigError(f"{output}: no study there; {MEND}")
        content = json.loads(read_bytes(place))["study"]
        return Study(
            **{
                **content,
                "budget": Budget(**content["budget"]),
                "thresholds": Thresholds(**content["thresholds"]),
                "arms": tuple(Arm(**arm) for arm in content["arms"]),
                "axes": tuple(Axis(**{**axis, "arms": tuple(axis["arms"])}) for axis in content["axes"]),
                "seeds": tuple(content["seeds"]),
            }
        )
    except OSError as error:
        raise ConfigError(f"{output}: cannot be read ({error.strerror}); {MEND}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{place}: not a study of this version ({error})") from None


def results(output: Location, say: Callable[[str], None]) -> tuple[Study, list[tuple[Cell, Result]]]:
    """Every cell in its order with its result; what was skipped or is not measured yet has one that says so."""
    study = study_of(output)
    every = cells(study)
    known = _known(output, say)
    found = []
    for cell in every:
        result = known.results.get(cell.key)
        if result is None:
            smaller = todo.beyond(study, cell, every, known)
            why = f"{smaller} was out of memory" if smaller else ""
            result = Result(cell.key, SKIPPED if smaller else MISSING, why=why, fields=dict(cell.fields))
        found.append((cell, result))
    return study, found


def _known(output: Location, say: Callable[[str], None]) -> Known:
    """From the records; where there are none, from what ``write`` made of them."""
    names_there = listing(output)
    if LINES not in names_there or any(name.startswith(f"{FOLDER}/") for name in names_there):
        return Records(output).known(say)
    results: dict[str, Result] = {}
    names = {field.name for field in fields(Result)}
    for number, line in enumerate(read_bytes(join(output, LINES)).splitlines(), 1):
        try:
            row = json.loads(line)
            if row["version"] != VERSION:
                say(f"{LINES}, line {number}: of version {row['version']}, this one reads {VERSION}; left out")
            elif row["outcome"] not in (SKIPPED, MISSING):
                results[row["cell"]] = Result(**{name: row[name] for name in names})
        except (ValueError, KeyError, TypeError):
            say(f"{LINES}, line {number}: cut short, or no record; left out")
    return Known({}, results)


def write(output: Location, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """``study.json``, ``cells.jsonl`` and ``cells.csv`` into a folder: a page can be made of them too."""
    _, found = results(output, say)
    rows: list[dict[str, Any]] = []
    lines = []
    for cell, result in found:
        lines.append(json.dumps({**asdict(cell), **asdict(result)}) + "\n")
        rows.append(
            {
                "cell": cell.key,
                "arm": cell.arm,
                "axis": cell.axis,
                "value": cell.value,
                "seed": cell.seed,
                "outcome": result.outcome,
                "why": result.why,
                **result.numbers,
            }
        )
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        folder / STUDY: read_bytes(join(output, STUDY)),
        folder / LINES: "".join(lines).encode(),
        folder / "cells.csv": table.getvalue().encode(),
    }
    for path, data in written.items():
        atomic_write(path, data)
    return list(written)
