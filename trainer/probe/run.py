"""Runs the cells of a study that are left, one after the other, and leaves a record of each."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from trainer.errors import CapsnetError, ConfigError, InterruptedRun
from trainer.probe import collect, limits, todo
from trainer.probe.records import ERROR, Records, Result, hardware, machine, software
from trainer.probe.study import Cell, Study, cells, config_of, split
from trainer.probe.watch import Watched, watch
from trainer.progress import clock
from trainer.storage import Location

MODULES = {
    "cost": "trainer.probe.cost",
    "learning": "trainer.probe.learning",
    "ranks": "trainer.probe.ranks",
    "streaming": "trainer.probe.streaming",
}
FOOTPRINT_SECONDS = 120.0


def run(
    study: Study,
    output: Location,
    shard: tuple[int, int],
    say: Callable[[str], None],
    stopped: Callable[[], bool],
    *,
    noted: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    noisy_again: bool = False,
    failed_again: bool = False,
) -> None:
    """Measures the cells of shard (i, N), i from 0: every Nth of the study.

    Args:
        noted: within, a stop only makes ``stopped`` true; elsewhere it may raise KeyboardInterrupt.
        noisy_again: measured cells that met this machine while it was slower first lose their records.
        failed_again: so do those that were killed or ended in an error.

    Raises:
        ConfigError: the output or the memory limit cannot be used, or ``noisy_again`` cells are of another machine.
        InterruptedRun, KeyboardInterrupt: stopped; records are whole.
    """
    every = cells(study)
    mine = every[shard[0] :: shard[1]]
    records = Records(output)
    records.check(study)
    with noted():
        check_footprint(study, stopped)
    records.claim(study)
    collect.unpack(output, say)
    known = records.known(say)
    here = machine(hardware())
    others = sorted({machine(result.hardware) for result in known.results.values()} - {here})
    if others:
        say(f"cells there were measured on {'; '.join(others)}, this is {here}: times do not compare")
    if noisy_again:
        if others:
            raise ConfigError(f"{output}: cells of another machine are not measured again on this one")
        of_study = [(cell, known.results[cell.key]) for cell in every if cell.key in known.results]
        again = [cell for cell in limits.noisy(of_study) if cell in mine]
        say(f"{len(again)} cells met a machine that was slower by more than {limits.NOISY - 1:.0%}: once more")
        records.forget(again)
    if failed_again:
        again = todo.failed(mine, known)
        say(f"{len(again)} cells were killed or ended in an error: once more")
        records.forget(again)
    for result in todo.killed(mine, records.known(say)):
        say(f"{result.cell}: {summary(result)}; --failed-again measures it once more")
        records.finish(result)
    say(f"at most {bound(study, len(todo.left(study, mine, records.known(say), every)))} for what is left")
    began, done = time.monotonic(), 0
    while left := todo.left(study, mine, known := records.known(say), every):
        if stopped():
            raise stopped_at(output)
        cell, times = left[0], known.started.get(left[0].key, 0) + 1
        eta = clock((time.monotonic() - began) / done * len(left)) if done else "-:--"
        say(f"[{len(mine) - len(left) + 1}/{len(mine)}, ETA {eta}] {cell.key}")
        try:
            records.start(cell, times, {"seconds": study.budget.seconds, "memory_mib": study.budget.memory_mib})
            with noted():
                measured = measure(study, cell, stopped)
            if measured is None:
                raise stopped_at(output)
            records.finish(measured)
        except BaseException:  # a stop, a full disk, a bucket out of reach: not the cell's doing
            with noted():
                records.take_back(cell, times)
            raise
        say(f"    {summary(measured)}")
        done += 1


def stopped_at(output: Location) -> InterruptedRun:
    return InterruptedRun(f"stopped; the same command with --output {output} goes on from there")


def one(study: Study, key: str) -> Result:
    """One cell, of which nothing is recorded. Raises ConfigError where there is none of that name."""
    found = next((cell for cell in cells(study) if cell.key == key), None)
    if found is None:
        raise ConfigError(f"study {study.name} has no cell {key}; 'capsnet probe show {study.name} --cells' lists them")
    result = measure(study, found, lambda: False)
    assert result is not None  # nobody stops it
    return result


def bound(study: Study, count: int) -> str:
    """The most that so many cells can take, in words."""
    hours = count * study.budget.seconds / 3600
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def measure(study: Study, cell: Cell, stopped: Callable[[], bool]) -> Result | None:
    """One cell; None where a stop was asked for."""
    try:
        config_of(study, cell)
    except CapsnetError as error:  # sizes that do not fit are an answer too
        return _result(cell, Watched(ERROR, str(error), {}))
    fields, settings = split(cell.fields)
    spec: dict[str, object] = {"recipe": study.recipe, "fields": fields, "settings": settings}
    with tempfile.TemporaryDirectory(prefix="capsnet-probe-") as folder:
        budget = study.budget
        found = watch(MODULES[study.measure], spec, Path(folder), budget.seconds, budget.memory_mib, stopped)
    return None if found is None else _result(cell, found)


def check_footprint(study: Study, stopped: Callable[[], bool]) -> None:
    """Raises ConfigError where a cell's limit is below what the program takes before it does anything."""
    with tempfile.TemporaryDirectory(prefix="capsnet-probe-") as folder:
        found = watch("trainer.probe.footprint", {}, Path(folder), FOOTPRINT_SECONDS, float("inf"), stopped)
    if found is None:
        raise InterruptedRun("stopped before the first cell")
    if found.numbers["peak_mib"] > study.budget.memory_mib:
        raise ConfigError(
            f"study {study.name}: a cell may have {study.budget.memory_mib:,} MiB, and the program itself takes "
            f"{found.numbers['peak_mib']:,.0f}; raise --memory"
        )


def summary(result: Result) -> str:
    seconds = result.numbers.get("step_seconds")
    parts = [result.outcome]
    parts += [f"{1e3 * seconds:,.0f} ms a step"] if seconds else []
    parts += [f"accuracy {100 * result.numbers['accuracy']:.1f} %"] if "accuracy" in result.numbers else []
    parts += [f"{result.numbers['images_per_second']:,.0f} images/s"] if "images_per_second" in result.numbers else []
    parts += [f"{result.numbers['peak_mib']:,.0f} MiB"] if "peak_mib" in result.numbers else []
    return ", ".join(parts) + (f": {result.why}" if result.why else "")


def _result(cell: Cell, found: Watched) -> Result:
    return Result(
        cell.key,
        found.outcome,
        found.numbers,
        found.why,
        dict(cell.fields),
        software(),
        hardware(),
        time.time(),
        series=found.series,
    )
