"""What is known of the cells of a study: a file or object each, since objects in a bucket cannot be appended to.

    OUTPUT/study.json
    OUTPUT/records/<cell>.started-1.json     before a cell: its limits
    OUTPUT/records/<cell>.result.json        after it: outcome and numbers

A start without a result means that the cell was killed with its parent, or killed it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trainer.errors import ConfigError, StorageError
from trainer.probe.study import Arm, Axis, Budget, Cell, Study, Thresholds, fingerprint
from trainer.storage import Location, atomic_write, delete, join, listing, make_folder, read_bytes

VERSION = 2
STUDY, FOLDER = "study.json", "records"
MEND = "is it what 'capsnet probe run --output' was given?"
OK, MEMORY, TIME, NOT_FINITE, COLLAPSED, ERROR = (
    "ok",
    "out of memory",
    "out of time",
    "not finite",
    "collapsed",
    "error",
)
KILLED = "killed"
OUTCOMES = (OK, MEMORY, TIME, NOT_FINITE, COLLAPSED, ERROR, KILLED)
PACKAGES = ("capsnet", "tensorflow-cpu", "tensorflow", "keras", "numpy", "horovod")


@dataclass(frozen=True)
class Result:
    """``numbers``: what was measured, by name; ``series``: over its time; ``why``: in words where it is not ok."""

    cell: str
    outcome: str
    numbers: dict[str, float] = field(default_factory=dict)
    why: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0
    version: int = VERSION
    series: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """``started``: how often each cell was; ``results`` by cell."""

    started: dict[str, int]
    results: dict[str, Result]


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


class Records:
    """At one output. Every method raises StorageError, StorageRefused, or ConfigError where a folder cannot be used."""

    def __init__(self, output: Location) -> None:
        self._output = output
        self._folder = join(output, FOLDER)

    def claim(self, study: Study) -> None:
        """Raises ConfigError where the output holds another study, or this one declared otherwise."""
        place = join(self._output, STUDY)
        ours = {"version": VERSION, "fingerprint": fingerprint(study), "study": asdict(study)}
        try:
            make_folder(self._folder)
            if STUDY in listing(self._output):
                theirs = study_of(self._output)  # fields that came later have their defaults
                if fingerprint(theirs) != ours["fingerprint"]:
                    raise ConfigError(
                        f"{self._output}: holds study {theirs.name}, declared otherwise; choose another --output"
                    )
                return
            atomic_write(place, (json.dumps(ours, indent=2) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"{self._output}: cannot be used ({error.strerror}); choose another --output") from None

    def start(self, cell: Cell, times: int, limits: dict[str, float]) -> None:
        content = {"cell": cell.key, "limits": limits, "time": time.time(), "version": VERSION}
        self._write(f"{slug(cell.key)}.started-{times}.json", content)

    def finish(self, result: Result) -> None:
        self._write(f"{slug(result.cell)}.result.json", asdict(result))

    def forget(self, cells: Iterable[Cell]) -> None:
        """Removes what is known of cells, starts and results."""
        there = listing(self._folder)
        for cell in cells:
            for name in there:
                if name == f"{slug(cell.key)}.result.json" or name.startswith(f"{slug(cell.key)}.started-"):
                    delete(join(self._folder, name))

    def known(self, say: Callable[[str], None]) -> Known:
        """Whole records of this version; others are named and left alone."""
        started: dict[str, int] = {}
        results: dict[str, Result] = {}
        for name in sorted(listing(self._folder)):
            try:
                content = json.loads(read_bytes(join(self._folder, name)))
                if content["version"] != VERSION:
                    say(f"{name}: a record of version {content['version']}, this one reads {VERSION}; left out")
                elif name.endswith(".result.json"):
                    results[content["cell"]] = Result(**content)
                else:
                    started[content["cell"]] = started.get(content["cell"], 0) + 1
            except (ValueError, KeyError, TypeError):
                say(f"{name}: cut short, or no record; left out")
            except StorageError as error:
                say(f"{name}: {error}; left out")
        return Known(started, results)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        try:
            atomic_write(join(self._folder, name), (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"{self._folder}: not written ({error.strerror}); make room and go on") from None


def slug(key: str) -> str:
    """A cell's key as a file name."""
    return re.sub(r"[^\w.=,-]", "_", key)


def software() -> dict[str, str]:
    """Versions, and the commit of a checkout."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    where = Path(__file__).parents[2]
    if (where / ".git").exists():
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True)
        found["commit"] = asked.stdout.strip()
    return found


def hardware() -> dict[str, Any]:
    """The machine, in what matters to a time."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.*)", info.read_text())
        model = match[1] if match else ""
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total // 2**20,
    }
