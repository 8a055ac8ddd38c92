"""Runs a comparison: each arm and seed in a process of its own, then the affine set, then tables and pictures.

All that is known is on disk: a comparison that was stopped goes on from what its folder holds.
"""

from __future__ import annotations

import json
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer import hints, rundir
from trainer import plan as training
from trainer.compare import outcome as outcomes
from trainer.compare import plan as planning
from trainer.compare import results, table
from trainer.compare.live import Live
from trainer.compare.outcome import Outcome
from trainer.compare.plan import Cell, Comparison, Folder, Request
from trainer.compare.process import Stopper, cause
from trainer.data import index as data_index
from trainer.data.index import Index
from trainer.errors import EXIT_DIVERGED, EXIT_DONE, EXIT_UNEXPECTED, CapsnetError, ConfigError, InterruptedRun
from trainer.launch import mpi
from trainer.model.costs import costs
from trainer.progress import clock
from trainer.storage import atomic_write


def compare(request: Request, output: Path | None, dry_run: bool) -> int:
    """Runs what is left of a comparison, or says what that is. Returns an exit code.

    Raises:
        ConfigError, DataError: before anything runs, in one line.
        InterruptedRun: stopped on request; what is done is in the folder.
    """
    folder = Folder(output) if output is not None else None
    stored = planning.load(folder) if folder is not None else None
    comparison = planning.planned(request, stored, str(output))
    session = Session(comparison, folder or Folder(rundir.new_path(f"compare-{comparison.recipe}")))
    if dry_run:
        print(session.listing())
        return EXIT_DONE
    return session.run()


class Session:
    """A comparison in its folder, checked."""

    def __init__(self, comparison: Comparison, folder: Folder) -> None:
        self.comparison, self.folder = comparison, folder
        self.cells = planning.cells(comparison)
        self.index = self._checked()
        first = self.cells[0].config
        self.steps = data_index.total_steps(first, self.index)
        self.test_records = data_index.split_of(self.index, first.data.test_split).records
        self.outcomes: dict[str, Outcome] = {}
        self._read()

    def _checked(self) -> Index:
        """Every arm is what can be trained: found out before the first hour is spent."""
        for cell in self.cells:
            if cell.seed == 0:
                try:
                    index = training.check(cell.config, ranks=1)
                except CapsnetError as error:
                    raise ConfigError(f"arm {cell.arm}{' with --overlap' * cell.overlap}: {error}") from None
        return index

    # what will run

    def listing(self) -> str:
        """Runs, their sizes, and what each arm changes; nothing that was not measured."""
        rows = [["run", "parameters", "mult-adds", "state"]]
        for cell in self.cells:
            found = self.outcomes[cell.name]
            state = found.state if found.state != "begun" else f"at step {found.step:,} of {self.steps:,}"
            cost = costs(cell.config.model).total
            rows.append([cell.name, f"{cost.parameters:,}", table.millions(cost.multiply_adds), state])
        arms = results.summarised(self.comparison, self._pairs(), self.test_records)
        said = table.notes(self.comparison, arms, self.test_records, self.steps)
        left = sum(not found.is_final for found in self.outcomes.values())
        seconds = outcomes.remaining_seconds(self._pairs())
        after = f", about {clock(seconds)} by those that are done" if left and math.isfinite(seconds) else ""
        return f"{table.as_text([rows], said)}\n\n{left} of {len(self.cells)} runs to do{after}; in {self.folder.path}"

    def _pairs(self) -> list[tuple[Cell, Outcome]]:
        return [(cell, self.outcomes[cell.name]) for cell in self.cells]

    # running

    def run(self) -> int:
        """Does what is left, writes and prints what was found."""
        folder, stopper = self.folder, Stopper()
        held = rundir.hold(folder.path, "--output")
        try:
            self._write(folder.plan, planning.dump(self.comparison))
            with rundir.told_plainly(folder.path):
                folder.runs.mkdir(exist_ok=True)
                folder.outcomes.mkdir(exist_ok=True)
            self._read()
            print(f"comparison: {folder.path}")
            print(f"watch:      {hints.command('tensorboard', folder.runs)}", flush=True)
            for number, cell in enumerate(self.cells, 1):
                if not self.outcomes[cell.name].is_final and not stopper.requested:
                    self._do(cell, number, stopper)
            self._write_results()
            if stopper.requested:
                raise self._stopped()
            stopper.between = self._stopped
            self._draw()
            print("\n" + self._text())
            return self._conclude()
        finally:
            os.close(held)

    def _do(self, cell: Cell, number: int, stopper: Stopper) -> None:
        """What is left of one run, and says how it went."""
        before, printed = self.outcomes[cell.name], self.folder.printed(cell)
        place = f"[{number}/{len(self.cells)}] {cell.name}"
        live = Live(place, self.folder.run(cell), self.steps, lambda *now: self._remaining(cell, *now))
        known = {"versions": before.versions or versions_now()}
        self._note(cell, known)
        code = EXIT_DONE
        if before.state != "trained":
            code = stopper.run(["launch", *planning.command(cell, self.folder.run(cell))], printed, live.training)
            self._read(cell)
        if code == EXIT_DONE and self.outcomes[cell.name].state == "trained" and not stopper.requested:
            code = stopper.run(self._affine(cell), printed, lambda: live.text("affine set"))
        stopped = stopper.requested and code not in (EXIT_DONE, EXIT_DIVERGED)
        self._note(cell, known if stopped else {**known, "code": code, "cause": cause(code, printed)})
        self._read(cell)
        live.end("stopped" if stopped else _line(self.outcomes[cell.name]))
        self._write_results()

    def _remaining(self, cell: Cell, whole: float, left: float) -> float:
        return outcomes.remaining_seconds(self._pairs(), cell.name, whole, left)

    def _affine(self, cell: Cell) -> list[str]:
        run, score = str(self.folder.run(cell)), str(self.folder.affine(cell))
        return ["launch", "evaluate", run, "--checkpoint", "last", "--affine", "--json", score]

    def _read(self, *only: Cell) -> None:
        for cell in only or self.cells:
            self.outcomes[cell.name] = outcomes.read(self.folder, cell, self.steps)

    def _note(self, cell: Cell, tree: dict[str, Any]) -> None:
        """How a run ended; nothing of that while it runs."""
        self._write(self.folder.outcome(cell), (json.dumps(tree, indent=2) + "\n").encode())

    def _stopped(self) -> InterruptedRun:
        done = sum(found.is_final for found in self.outcomes.values())
        return InterruptedRun(
            f"stopped with {done} of {len(self.cells)} runs done; to go on: "
            f"{hints.command('compare', self.folder.path)}"
        )

    def _conclude(self) -> int:
        failed = [name for name, found in self.outcomes.items() if not found.is_final]
        print(f"\nresults: {self.folder.path}")
        if failed:
            print(
                f"{len(failed)} of {len(self.cells)} runs failed ({', '.join(failed[:3])}"
                f"{', ...' if len(failed) > 3 else ''}); to try them again: "
                f"{hints.command('compare', self.folder.path)}"
            )
        return EXIT_UNEXPECTED if failed else EXIT_DONE

    # what was found

    def _tables(self) -> tuple[list[results.Arm], list[table.Rows], list[str]]:
        arms = results.summarised(self.comparison, self._pairs(), self.test_records)
        sets = results.SETS if self.comparison.overlap else results.SETS[:2]
        said = table.notes(self.comparison, arms, self.test_records, self.steps)
        tables = [table.scores(arms, sets), table.gains(arms, sets), table.costs(arms)]
        return arms, [rows for rows in tables if rows], said

    def _text(self) -> str:
        _, tables, said = self._tables()
        return table.as_text(tables, said)

    def _write_results(self) -> None:
        arms, tables, said = self._tables()
        title = f"Comparison of {self.comparison.recipe}"
        first = self.cells[0].config
        data = {
            "name": self.index.name,
            "fingerprint": data_index.fingerprint(self.index),
            "train_records": data_index.split_of(self.index, first.data.train_split).records,
            "test_records": self.test_records,
            "steps": self.steps,
        }
        at = self.folder.path
        self._write(at / "results.json", results.as_json(self.comparison, arms, self._pairs(), data))
        self._write(at / "results.csv", results.as_csv(self._pairs()))
        self._write(at / "table.md", table.as_markdown(title, tables, said).encode())

    def _draw(self) -> None:
        from trainer.compare import plot, scenes

        arms, at = self._tables()[0], self.folder.path
        title = f"{self.comparison.recipe}, {self.steps:,} steps"
        self._write(at / "accuracy.png", plot.accuracy(title, arms))
        self._write(at / "cost.png", plot.cost(title, arms))
        for cell in self.cells:
            if cell.overlap and cell.config.model.decoder.hidden and self.outcomes[cell.name].state == "done":
                decoded = scenes.decode(self.folder.run(cell))
                self._write(at / "scenes.png", scenes.picture(f"{cell.name} of {self.comparison.recipe}", decoded))
                break

    def _write(self, path: Path, content: bytes) -> None:
        with rundir.told_plainly(path):
            atomic_write(path, content)


def _line(found: Outcome) -> str:
    """How a run went, in a line."""
    if found.state in ("diverged", "failed"):
        return f"{found.state}: {found.cause}"
    scores = [("test", found.test_accuracy), ("affine", found.affine_accuracy)]
    said = [f"{name} {100 * share:.2f} %" for name, share in scores if share is not None]
    return ", ".join([*said, f"{clock(found.seconds or math.nan)}"])


def versions_now() -> dict[str, str]:
    """What a run is made with."""
    return {
        "capsnet": metadata.version("capsnet"),
        "python": platform.python_version(),
        "tensorflow": mpi.tensorflow_version() or "",
        "keras": metadata.version("keras"),
        "numpy": metadata.version("numpy"),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
    }
