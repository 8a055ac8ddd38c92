"""What is summed up between two records of a run: losses, and where the time went."""

from __future__ import annotations

import math

from trainer.data.batches import AUGMENTING, DECODING, READING, STAGES
from trainer.step import CORRECT, LOSS, Report

SMALL_WAIT = 0.02


class Meter:
    """Sums over the steps since it was last emptied. The sums belong in a checkpoint: a record must not depend on
    where a run was interrupted. The times (seconds) do not, and leave out the first step, which compiles."""

    def __init__(self, steps: int = 0, sums: dict[str, float] | None = None) -> None:
        self.steps = steps
        self.sums = dict(sums or {})
        self.timed_steps = 0
        self.waits = dict.fromkeys(STAGES, 0.0)
        self.waited = 0.0
        self.seconds = 0.0

    def add(self, report: Report, waits: dict[str, float], waited: float, seconds: float) -> None:
        """A step that took ``seconds``, of which it waited; 0 where it is not to be timed."""
        self.steps += 1
        if seconds:
            self.add_time(waits, waited, seconds)
        for name in (LOSS, CORRECT, *report.terms):
            self.sums[name] = self.sums.get(name, 0.0) + report.mean(name)

    def add_time(self, waits: dict[str, float], waited: float, seconds: float) -> None:
        self.timed_steps += 1
        self.waited += waited
        self.seconds += seconds
        for stage, waited_for in waits.items():
            self.waits[stage] += waited_for

    def mean(self, name: str) -> float:
        return self.sums[name] / self.steps

    @property
    def steps_per_second(self) -> float:
        return self.timed_steps / self.seconds if self.timed_steps else math.nan

    @property
    def input_wait(self) -> float:
        """Share of the time that it took to get batches, those included that were ready."""
        return self.waited / self.seconds if self.timed_steps else math.nan

    def input_waits(self) -> dict[str, float]:
        """Shares of the time that were waited for each stage of the input."""
        return {
            f"wait_{stage}": waited / self.seconds if self.timed_steps else math.nan
            for stage, waited in self.waits.items()
        }

    def input_line(self, remote: bool) -> str:
        """How much of the time was waited for data, and for what, in words."""
        if not self.timed_steps:
            return "input: no step was timed"
        stage, most = max(self.waits.items(), key=lambda item: item[1])
        waited = sum(self.waits.values()) / self.seconds
        if waited < SMALL_WAIT:
            return f"input: {100 * waited:.1f} % of the time was waited for data"
        what, mend = {
            READING: ("the network" if remote else "reading", "raise storage.connections or storage.cache_bytes"),
            DECODING: ("decoding", "raise data.readers, or give it more cores"),
            AUGMENTING: ("augmentation", "raise data.prefetch, or give it more cores"),
        }[stage]
        return (
            f"input: {100 * waited:.1f} % of the time was waited for data, mostly for {what} "
            f"({100 * most / sum(self.waits.values()):.0f} % of the waiting): {mend}"
        )
