"""What a run leaves for people: metrics.jsonl, TensorBoard, log, live line. Only that of rank 0 writes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer import metrics, summaries
from trainer.config import RunConfig
from trainer.data.index import Index
from trainer.evaluation import Score
from trainer.model.network import CapsNet
from trainer.progress import Progress
from trainer.rundir import RunDirectory

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger("capsnet")

DEAD_LOOKS = 2
"""In a row, before a person is told: what one look sees may pass."""


class Journal:
    """A journal that says nothing: that of every rank but the first."""

    progress_due = False

    def train(
        self, step: int, values: Mapping[str, float], seconds: float, gradient_norms: Mapping[str, float]
    ) -> None:
        """Means since the record before; ``seconds`` of the run so far; norms of this step by layer."""

    def test(self, step: int, epoch: float, score: Score, summary: str) -> None:
        """A score over the test split, and its line."""

    def observe(self, step: int, batch: Mapping[str, tf.Tensor]) -> None:
        """A look at routing and pictures."""

    def show(self, step: int, epoch: float, values: Mapping[str, float], images_per_second: float, eta: float) -> None:
        """The live line."""

    def now_and_then(self, line: str) -> None:
        """Something else in place of the live line, where one is due."""

    def end_line(self) -> None:
        """Before anything else is printed."""

    def flush(self) -> None:
        """Before a checkpoint, so that records never end before it."""

    def close(self) -> None:
        """At the end of the process."""


class FirstRankJournal(Journal):
    """Writes to a run directory. Every method raises InterruptedRun where the disk is full."""

    def __init__(
        self, directory: RunDirectory, config: RunConfig, network: CapsNet, index: Index, total_steps: int
    ) -> None:
        self._metrics = metrics.MetricsFile(directory.metrics)
        self._board = summaries.Board(directory.path, config, network, index)
        self._progress = Progress(total_steps, config.log.print_seconds, quiet=False)
        self._total = total_steps
        self._dead_looks = 0

    @property
    def progress_due(self) -> bool:  # type: ignore[override]
        return self._progress.due

    def train(
        self, step: int, values: Mapping[str, float], seconds: float, gradient_norms: Mapping[str, float]
    ) -> None:
        self._metrics.write("train", step, {**values, "seconds": seconds})
        self._board.train(step, values, gradient_norms)

    def test(self, step: int, epoch: float, score: Score, summary: str) -> None:
        self._metrics.write("test", step, {"epoch": epoch, **score.values})
        self._board.test(step, score.values, score.confusion_JJ)
        self.end_line()
        log.info("%s", summary)

    def observe(self, step: int, batch: Mapping[str, tf.Tensor]) -> None:
        signs = self._board.observe(step, batch)
        if self._dead_looks >= DEAD_LOOKS and not signs.dead:
            self.end_line()
            log.info("step %d: the network is alive again", step)
        self._dead_looks = self._dead_looks + 1 if signs.dead else 0
        if self._dead_looks == DEAD_LOOKS:
            self.end_line()
            log.warning("step %d: the network looks dead: %s; see README, 'Is routing alive?'", step, signs.sentence)

    def show(self, step: int, epoch: float, values: Mapping[str, float], images_per_second: float, eta: float) -> None:
        self._progress.show(step, epoch, values, images_per_second, eta)

    def now_and_then(self, line: str) -> None:
        self._progress.now_and_then(line)

    def end_line(self) -> None:
        self._progress.end_line()

    def flush(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()
        self._metrics.close()
