"""What is known of the cells of a study: a file or object each, since objects in a bucket cannot be appended to.

    OUTPUT/study.json
    OUTPUT/records/<cell>.started-1.json     before a cell: its limits
    OUTPUT/records/<cell>.result.json        after it: outcome and numbers

A start without a result means that the cell was killed with its parent, or killed it: a parent that is stopped, or
fails, takes the start back.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trainer import distributed
from trainer.config import StorageConfig
from trainer.errors import CapsnetError, ConfigError, ObjectChanged, StorageError, StorageRefused
from trainer.launch import gpus
from trainer.probe.study import Arm, Axis, Budget, Cell, Study, Thresholds, fingerprint, joined
from trainer.storage import (
    Location,
    atomic_write,
    delete,
    is_cloud,
    join,
    listing,
    make_folder,
    read_bytes,
    swap,
)

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
REVISION = "CAPSNET_REVISION"
"""In the environment: the commit that an image was made of."""
SOON = StorageConfig(deadline_seconds=3, stall_seconds=3)
"""For what is put right while somebody waits for the end."""
CLAIMS = 10
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
        self._read: dict[str, Result | str | None] = {}  # by name: a result, the cell of a start, nothing

    def check(self, study: Study) -> None:
        """Raises ConfigError where the output holds another study, or this one declared otherwise."""
        with self._usable(), contextlib.suppress(FileNotFoundError):
            self._beside(study)

    def claim(self, study: Study) -> None:
        """Writes down what is measured there: this study, with those of its axes that are there already.

        Raises:
            ConfigError: as ``check``. ObjectChanged: others declare axes there again and again.
        """
        with self._usable():
            make_folder(self._folder)
            for _ in range(CLAIMS - 1):
                with contextlib.suppress(ObjectChanged):  # another machine was faster
                    return self._declare(study)
            self._declare(study)

    def _declare(self, study: Study) -> None:
        both, generation = self._beside(study)
        if both is not None:
            content = {"version": VERSION, "fingerprint": fingerprint(both), "study": asdict(both)}
            data, place = (json.dumps(content, indent=2) + "\n").encode(), join(self._output, STUDY)
            if is_cloud(place):
                swap(str(place), data, generation)
            else:
                atomic_write(place, data)

    def _beside(self, study: Study) -> tuple[Study | None, int]:
        """What is to be written, None where it is there; and the generation of the object that it replaces."""
        entry = listing(self._output).get(STUDY)
        if entry is None:
            return study, 0
        theirs = study_of(self._output)  # fields that came later have their defaults
        both = joined(theirs, study)
        if both is None:
            raise ConfigError(f"{self._output}: holds study {theirs.name}, declared otherwise; choose another --output")
        return (both if fingerprint(both) != fingerprint(theirs) else None), entry.generation

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self._output}: cannot be used ({error.strerror}); choose another --output") from None

    def start(self, cell: Cell, times: int, limits: dict[str, float]) -> None:
        content = {"cell": cell.key, "limits": limits, "time": time.time(), "version": VERSION}
        self._write(_start(cell, times), content, cell.key)

    def take_back(self, cell: Cell, times: int) -> None:
        """Removes a start, where that can be done within seconds: what came of it says nothing of the cell."""
        with contextlib.suppress(OSError, CapsnetError):
            delete(join(self._folder, _start(cell, times)), SOON)

    def finish(self, result: Result) -> None:
        self._write(f"{slug(result.cell)}.result.json", asdict(result), result)

    def forget(self, cells: Iterable[Cell]) -> None:
        """Removes what is known of cells: starts, then results, without which starts would count."""
        there = sorted(listing(self._folder), reverse=True)
        for cell in cells:
            for name in there:
                if name == f"{slug(cell.key)}.result.json" or name.startswith(f"{slug(cell.key)}.started-"):
                    delete(join(self._folder, name))

    def known(self, say: Callable[[str], None]) -> Known:
        """Whole records of this version; others are named, once, and left alone. Each is read once."""
        names = sorted(listing(self._folder))
        self._read = {name: self._read[name] for name in names if name in self._read}
        for name in names:
            if name not in self._read:
                self._learn(name, say)
        started: dict[str, int] = {}
        results: dict[str, Result] = {}
        for found in self._read.values():
            if isinstance(found, Result):
                results[found.cell] = found
            elif found is not None:
                started[found] = started.get(found, 0) + 1
        return Known(started, results)

    def _learn(self, name: str, say: Callable[[str], None]) -> None:
        try:
            content = json.loads(read_bytes(join(self._folder, name)))
            self._read[name] = None
            if content["version"] != VERSION:
                say(f"{name}: a record of version {content['version']}, this one reads {VERSION}; left out")
            else:
                self._read[name] = Result(**content) if name.endswith(".result.json") else str(content["cell"])
        except (ValueError, KeyError, TypeError):
            self._read[name] = None
            say(f"{name}: cut short, or no record; left out")
        except StorageError as error:
            say(f"{name}: {error}; left out")
        except (FileNotFoundError, StorageRefused):  # another machine took it back?
            if name in listing(self._folder):
                raise

    def _write(self, name: str, content: dict[str, Any], meaning: Result | str) -> None:
        try:
            atomic_write(join(self._folder, name), (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"{self._folder}: not written ({error.strerror}); make room and go on") from None
        self._read[name] = meaning


def _start(cell: Cell, times: int) -> str:
    return f"{slug(cell.key)}.started-{times}.json"


def slug(key: str) -> str:
    """A cell's key as a file name."""
    return re.sub(r"[^\w.=,-]", "_", key)


def software() -> dict[str, str]:
    """Versions, and the commit of a checkout or an image, where one is known."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _commit(Path(__file__).parents[2]) or os.environ.get(REVISION, "")
    return {**found, "commit": commit} if commit else found


def _commit(checkout: Path) -> str:
    """'' where it is none."""
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return ""
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True).stdout.strip()


def hardware() -> dict[str, Any]:
    """The machine, in what matters to a time."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.*)", info.read_text())
        model = match[1] if match else ""
    return {
        "cpu": model or platform.processor(),
        "cores": distributed.cores(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        **({"gpus": cards} if (cards := gpus.names()) else {}),
    }


def machine(of: Mapping[str, Any]) -> str:
    """In words, what of ``hardware`` says whether times compare."""
    cards = Counter(of.get("gpus", ()))
    return ", ".join([*(f"{count} x {name}" for name, count in cards.items()), of.get("cpu", "")])
