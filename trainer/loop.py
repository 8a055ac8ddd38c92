"""The training loop: composes data, network, step, evaluation, checkpoints and what people see.

One turn, always in this order: next batch, step (with its agreement), records, evaluation, checkpoint. The position in
the data is the step, so a checkpoint made at the end of a turn is all that a resume needs.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from trainer import checkpoint, distributed, evaluation, metrics, optimizer, progress, summaries
from trainer import config as configuration
from trainer import step as training_step
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data import pipeline
from trainer.distributed import World
from trainer.errors import CheckpointError, DivergedError, InterruptedRun
from trainer.launch.lifeline import Lifeline
from trainer.model import network
from trainer.plan import Plan
from trainer.rundir import RunDirectory

log = logging.getLogger("capsnet")

STOP_ON_REQUEST, STOP_ON_BUDGET = 1, 2
BUDGET_RESERVE = 1.5
"""The budget must also hold the last save: this times the longest one so far, plus a step."""


@dataclass(frozen=True)
class Outcome:
    """How a run that reached its end did."""

    directory: Path
    steps: int
    score: evaluation.Score
    trained_seconds: float


class Meter:
    """Sums over the steps since it was last emptied. The sums belong in a checkpoint: a record must not depend on
    where a run was interrupted. The times (seconds) do not, and leave out the first step, which compiles."""

    def __init__(self, steps: int = 0, sums: dict[str, float] | None = None) -> None:
        self.steps = steps
        self.sums = dict(sums or {})
        self.timed_steps = 0
        self.waited = 0.0
        self.seconds = 0.0

    def add(self, report: training_step.Report, waited: float, seconds: float, timed: bool) -> None:
        self.steps += 1
        if timed:
            self.timed_steps += 1
            self.waited += waited
            self.seconds += seconds
        for name in (training_step.LOSS, training_step.CORRECT, *report.terms):
            self.sums[name] = self.sums.get(name, 0.0) + report.mean(name)

    def mean(self, name: str) -> float:
        return self.sums[name] / self.steps

    @property
    def steps_per_second(self) -> float:
        return self.timed_steps / self.seconds if self.timed_steps else math.nan

    @property
    def input_wait(self) -> float:
        return self.waited / self.seconds if self.timed_steps else math.nan


class Loop:
    """One process's part of a run. ``plan`` is None on every rank but the first."""

    def __init__(self, config: RunConfig, world: World, lifeline: Lifeline, plan: Plan | None) -> None:
        self.config, self.world, self.lifeline, self.plan = config, world, lifeline, plan
        self.began = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.index = data_index.load_index(config.data.uri)
        split = data_index.split_of(self.index, config.data.train_split)
        self.steps_per_epoch = data_index.steps_per_epoch(split, config.data.lanes, config.train.global_batch_size)
        self.total_steps = max(1, round(config.train.epochs * self.steps_per_epoch))
        self.network = network.build(config.model, precision=config.train.precision, seed=config.seed)
        self.update = optimizer.build_optimizer(config.optimizer, self.network.trainable_variables)
        learning_rate = optimizer.learning_rate(config.optimizer, self.steps_per_epoch, self.total_steps)
        self.loss_scale = training_step.LossScale.create(config)
        self.step_variable = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.step = 0
        self.evaluated_step = -1
        self.score: evaluation.Score | None = None
        self.best_accuracy: float | None = None
        self.trained_before = 0.0
        self.started = False
        self.fixed_batch: dict[str, tf.Tensor] | None = None
        self.meter = Meter()
        self.step_seconds = math.nan
        self.saved = (-1, -1)
        self.save_wanted = False
        self.saved_at = time.monotonic()
        self.longest_save = 0.0
        self.run_step = training_step.make_step(
            config, self.network, self.update, learning_rate, self.loss_scale, self.step_variable, world
        )
        self.evaluate_batch = evaluation.make_evaluate_batch(config, self.network)
        self.progress = progress.Progress(self.total_steps, config.log.print_seconds, quiet=not world.is_first)

    @property
    def parameters(self) -> int:
        return sum(math.prod(variable.shape) for variable in self.network.trainable_variables)

    def data_line(self) -> str:
        """What is read, in one line."""
        config = self.config
        split = data_index.split_of(self.index, config.data.train_split)
        dropped = split.records - self.steps_per_epoch * config.train.global_batch_size
        return (
            f"data {self.index.name}: {split.records:,} records, {self.steps_per_epoch} steps of "
            f"{config.train.global_batch_size} an epoch ({dropped} other records left out each epoch), "
            f"{self.total_steps} steps"
        )

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint holds, by name."""
        slots = {f"optimizer/{variable.path}": variable.value for variable in self.update.variables}
        return {**weights_of(self.network), **slots, **self.loss_scale.variables()}

    def restore(self) -> None:
        """Rank 0 reads, the others receive."""
        plan = self.plan
        if plan is not None and plan.resume is not None:
            assign(self.variables(), plan.resume.tensors, plan.resume.path)
            state = plan.resume.state
            self.step, self.evaluated_step = self.saved = (state.step, state.evaluated_step)
            self.meter = Meter(state.meter_steps, state.meter_sums)
            self.best_accuracy = state.best_accuracy
            self.trained_before = state.trained_seconds
            log.info("resumed from %s", plan.resume.path)
        elif plan is not None and plan.weights is not None:
            self._take_weights(plan)
        counters = (self.step, self.evaluated_step)
        self.step, self.evaluated_step = distributed.broadcast_object(self.world, counters, "counters")
        distributed.broadcast(self.world, list(self.variables().values()), "state")
        self.step_variable.assign(self.step)

    def _take_weights(self, plan: Plan) -> None:
        assert plan.weights is not None
        weights = weights_of(self.network)
        if plan.new_head:
            head = ("weights/capsnet/class_capsules/", "weights/capsnet/decoder/")
            weights = {name: value for name, value in weights.items() if not name.startswith(head)}
        assign(weights, plan.weights.tensors, plan.weights.path)
        log.info("weights of %s%s", plan.weights.path, ", with a new head" if plan.new_head else "")

    def save(self, directory: RunDirectory, writer: checkpoint.Writer) -> None:
        """Copies the state out and leaves the writing to the writer."""
        began = time.monotonic()
        tensors = {name: np.asarray(variable.numpy()) for name, variable in self.variables().items()}
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        state = checkpoint.State(
            step=self.step,
            epoch=epoch,
            batch=batch,
            evaluated_step=self.evaluated_step,
            test_accuracy=self.score.accuracy if self.score and self.evaluated_step == self.step else None,
            best_accuracy=self.best_accuracy,
            trained_seconds=self._trained_seconds(),
            meter_steps=self.meter.steps,
            meter_sums=self.meter.sums,
            versions={"tensorflow": tf.__version__, "capsnet": importlib.metadata.version("capsnet")},
        )
        writer.submit(state, configuration.dump(self.config), tensors)
        self.saved, self.saved_at, self.save_wanted = (self.step, self.evaluated_step), time.monotonic(), False
        self.longest_save = max(self.longest_save, time.monotonic() - began)

    # turns

    def run(self) -> Outcome:
        """Trains to the end.

        Raises:
            InterruptedRun: stopped on request or by the budget; a checkpoint of the last step is saved.
            DivergedError: a loss or gradient is not finite; the checkpoint before it stands.
            DataError: a record cannot be used.
        """
        self.restore()
        if self.plan is None:
            return self._turns(None, None, None, None)
        directory = self.plan.directory
        directory.take_back_metrics(self.step, self.evaluated_step)
        summaries.take_back(directory.path, self.step, self.evaluated_step)
        writer = checkpoint.Writer(directory.checkpoints, self.config.checkpoint.keep_last)
        records = metrics.MetricsFile(directory.metrics)
        board = summaries.Board(directory.path, self.config, self.network, self.index)
        try:
            return self._turns(directory, writer, records, board)
        finally:
            board.close()
            records.close()

    def _turns(
        self,
        directory: RunDirectory | None,
        writer: checkpoint.Writer | None,
        records: metrics.MetricsFile | None,
        board: summaries.Board | None,
    ) -> Outcome:
        config = self.config
        stop = 0
        if self.step < self.total_steps:
            # an evaluation that a stop request cut off is made up for
            if self.step and self._evaluation_due() and self.evaluated_step != self.step:
                stop = self._evaluate(records, board)
            batches = iter(self._train_batches())
        while self.step < self.total_steps and not stop:
            self._mark("input")
            asked_at = time.monotonic()
            batch = next(batches)
            got_at = time.monotonic()
            self._mark("training", waits=True)
            report = self.run_step(batch, self._stop_wish())
            self._check(report, writer)
            self.step += 1
            self._measure(report, got_at - asked_at, time.monotonic() - asked_at)
            stop = report.stop
            if writer is None or directory is None or records is None or board is None:
                if self._evaluation_is_next(stop):
                    stop = self._evaluate(None, None)
                continue
            if self.step % config.log.every_steps == 0 or self.step == self.total_steps:
                self._record(report, records, board)
            if self.progress.due:
                self._show()
            if self.step % config.log.every_steps == 0:
                self.meter = Meter()
            if config.log.observe_every_steps and self.step % config.log.observe_every_steps == 0:
                board.observe(self.step, self._fixed_batch())
            if self._evaluation_is_next(stop):
                stop = self._evaluate(records, board)
            writer.check()
            self.save_wanted |= self._save_due()
            # a save still being written is not waited for, unless the best score would be lost
            if self.save_wanted and not stop and self.step < self.total_steps and (self._is_best() or not writer.busy):
                board.flush()
                self.save(directory, writer)
        if not stop and self.evaluated_step != self.step:
            stop = self._evaluate(records, board)
        elif not stop and self.score is None:  # a finished run that is started again
            stop = self._evaluate(None, None)
        self._finish(directory, writer, board)
        if stop:
            self._say_stop(stop)
        assert self.score is not None
        return Outcome(
            directory.path if directory else Path(),
            self.step,
            self.score,
            self._trained_seconds(),
        )

    def _measure(self, report: training_step.Report, waited: float, seconds: float) -> None:
        self.meter.add(report, waited, seconds, timed=self.started)
        if self.started:  # a moving average over some twenty steps
            self.step_seconds = seconds if math.isnan(self.step_seconds) else 0.95 * self.step_seconds + 0.05 * seconds
        self.started = True

    def _evaluation_is_next(self, stop: int) -> bool:
        return not stop and self.step < self.total_steps and self._evaluation_due()

    def _train_batches(self) -> pipeline.Batches:
        return pipeline.train_batches(
            self.config, self.index, self.world.rank, self.world.size, self.step, self.total_steps - self.step
        )

    def _fixed_batch(self) -> dict[str, tf.Tensor]:
        """The first test records: looks at the same images can be compared."""
        if self.fixed_batch is None:
            with pipeline.test_batches(self.config, self.index, 0, 1) as batches:
                self.fixed_batch = next(batches)
        return self.fixed_batch

    def _mark(self, phase: str, *, waits: bool = False) -> None:
        self.lifeline.mark(phase if self.started else "starting", self.step, waits=waits)

    def _trained_seconds(self) -> float:
        """Wall time of the run, over all its parts, from the start of the process."""
        return self.trained_before + time.monotonic() - self.began

    def _stop_wish(self) -> int:
        if self.lifeline.stop_requested:
            return STOP_ON_REQUEST
        budget = self.config.train.budget_seconds
        reserve = BUDGET_RESERVE * self.longest_save
        if budget and self.world.is_first and time.monotonic() - self.began + reserve >= budget:
            return STOP_ON_BUDGET
        return 0

    def _check(self, report: training_step.Report, writer: checkpoint.Writer | None) -> None:
        """Raises DivergedError on all ranks where training cannot go on; a float16 overflow is normal."""
        wrong = report.not_finite()
        if not wrong and not report.applied and not self.loss_scale.enabled:
            wrong = ["the gradient, with a finite loss"]
        limit = self.config.train.max_skipped_steps
        if not wrong and self.loss_scale.enabled and int(self.loss_scale.skipped) >= limit:
            wrong = [f"the gradient, {limit} steps in a row at loss scale {float(self.loss_scale.scale):g}"]
        if not wrong:
            return
        if writer is not None:
            writer.wait()
        distributed.barrier(self.world, "diverged")
        last = checkpoint.paths(self.plan.directory.checkpoints)[-1:] if self.plan else []
        good = f"last good checkpoint: {last[0]}" if last else "no checkpoint was saved yet"
        raise DivergedError(f"diverged at step {self.step + 1}: not finite: {'; '.join(wrong)}; {good}")

    def _evaluation_due(self) -> bool:
        every = self.config.evaluate.every_epochs
        return bool(every) and self.step % max(1, round(every * self.steps_per_epoch)) == 0

    def _save_due(self) -> bool:
        """By steps, by time, or because this is the best score so far."""
        rule = self.config.checkpoint
        by_steps = bool(rule.every_steps) and self.step % rule.every_steps == 0
        by_time = bool(rule.every_seconds) and time.monotonic() - self.saved_at >= rule.every_seconds
        return by_steps or by_time or self._is_best()

    def _is_best(self) -> bool:
        score = self.score if self.evaluated_step == self.step else None
        return score is not None and score.accuracy == self.best_accuracy

    def _evaluate(self, records: metrics.MetricsFile | None, board: summaries.Board | None) -> int:
        """Returns a stop wish if any rank had one; the score is then of no use."""
        began = time.monotonic()

        def before_batch(number: int) -> None:
            self.lifeline.mark("evaluating" if self.started else "starting", self.step)
            if number % 10 == 9 and self.progress.due:
                self.progress.text(f"step {self.step}/{self.total_steps}  evaluating, batch {number + 1}")

        score = evaluation.evaluate(
            self.config,
            self.evaluate_batch,
            pipeline.test_batches(self.config, self.index, self.world.rank, self.world.size),
            self.world,
            before_batch,
            lambda: self.lifeline.stop_requested,
        )
        if score.stopped:
            return STOP_ON_REQUEST
        self.score, self.evaluated_step = score, self.step
        self.best_accuracy = max(score.accuracy, self.best_accuracy or 0.0)
        if records is not None and board is not None:
            epoch = self.step / self.steps_per_epoch
            records.write("test", self.step, {"epoch": epoch, **score.values})
            board.test(self.step, score.values)
            self.progress.end_line()
            log.info(
                "epoch %.4g: test accuracy %.2f %% of %d, loss %.4f (%.1f s)",
                epoch,
                100 * score.accuracy,
                score.records,
                score.values["loss"],
                time.monotonic() - began,
            )
        return 0

    def _record(self, report: training_step.Report, records: metrics.MetricsFile, board: summaries.Board) -> None:
        meter = self.meter
        values = {
            "epoch": self.step / self.steps_per_epoch,
            "loss": meter.mean(training_step.LOSS),
            "accuracy": meter.mean(training_step.CORRECT),
            **{name: meter.mean(name) for name in report.terms},
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "images_per_second": meter.steps_per_second * self.config.train.global_batch_size,
            "input_wait": meter.input_wait,
        }
        records.write("train", self.step, {**values, "seconds": self._trained_seconds()})
        board.train(self.step, values)

    def _show(self) -> None:
        self.progress.show(
            self.step,
            self.step / self.steps_per_epoch,
            {"loss": self.meter.mean(training_step.LOSS), "accuracy": self.meter.mean(training_step.CORRECT)},
            self.config.train.global_batch_size / self.step_seconds,
            (self.total_steps - self.step) * self.step_seconds,
        )

    def _finish(
        self, directory: RunDirectory | None, writer: checkpoint.Writer | None, board: summaries.Board | None
    ) -> None:
        """The last save, and the barrier behind it: the first rank to leave takes the others down with it."""
        self.lifeline.mark("saving", self.step)
        if writer is not None and directory is not None and board is not None:
            board.flush()
            if self.saved != (self.step, self.evaluated_step):
                self.save(directory, writer)
            writer.wait()
            self.progress.end_line()
        self.lifeline.mark("leaving", self.step, waits=True)
        distributed.barrier(self.world, "end")

    def _say_stop(self, stop: int) -> None:
        why = "stopped on request" if stop == STOP_ON_REQUEST else "the time budget is spent"
        path = self.plan.directory.path if self.plan else "the run directory"
        raise InterruptedRun(f"{why} at step {self.step} of {self.total_steps}, saved; {continue_command(path)}")


def assign(variables: dict[str, tf.Variable], tensors: dict, source: Path) -> None:
    """Raises CheckpointError, and assigns nothing, where a tensor is missing or has another shape."""
    for name, variable in variables.items():
        if name not in tensors:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another model (see its config.json)")
        if tensors[name].shape != tuple(variable.shape):
            raise CheckpointError(
                f"{source}: {name} is {list(tensors[name].shape)}, this model has {variable.shape.as_list()}; "
                "another number of classes needs --new-head"
            )
    for name, variable in variables.items():
        variable.assign(tensors[name])


def score_checkpoint(
    config: RunConfig, found: checkpoint.Checkpoint, world: World, lifeline: Lifeline
) -> evaluation.Score:
    """A checkpoint on the test split, without any of the training state."""
    index = data_index.load_index(config.data.uri)
    data_index.check_fits(index, config)
    net = network.build(config.model, precision=config.train.precision, seed=config.seed)
    assign(weights_of(net), found.tensors, found.path)
    return evaluation.evaluate(
        config,
        evaluation.make_evaluate_batch(config, net),
        pipeline.test_batches(config, index, world.rank, world.size),
        world,
        lambda number: lifeline.mark("evaluating", number),
    )


def weights_of(net: network.CapsNet) -> dict[str, tf.Variable]:
    """A network's variables by the names that they have in a checkpoint."""
    return {f"weights/{variable.path}": variable.value for variable in net.variables}


def continue_command(path: Path | str) -> str:
    return f"to go on: {front('train', path)}"


def front(command: str, path: Path | str, arguments: str = "") -> str:
    """The command as this person would type it: through make, if that is how the run was started."""
    if os.environ.get("CAPSNET_FRONT") == "make":
        name = "LOGDIR" if command == "tensorboard" else "RUN"
        return f"make {command} {name}={path}" + (f' ARGS="{arguments}"' if arguments else "")
    if command == "tensorboard":
        return f"tensorboard --logdir {path}"
    return f"capsnet {command} {'--run ' if command == 'train' else ''}{path} {arguments}".rstrip()
