"""The training loop: composes data, network, step, evaluation, checkpoints and what people see.

One turn, always in this order: next batch, step (with its agreement), records, evaluation, checkpoint. The position in
the data is the step, so a checkpoint made at the end of a turn is all that a resume needs.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import psutil
import tensorflow as tf

from trainer import checkpoint, distributed, evaluation, hints, losses, optimizer, runtime, summaries, weights
from trainer import config as configuration
from trainer import step as training_step
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data import pipeline
from trainer.distributed import World
from trainer.errors import EXIT_DONE, CapsnetError, CheckpointError, DataError, DivergedError, InterruptedRun
from trainer.journal import FirstRankJournal, Journal
from trainer.launch import wire
from trainer.launch.lifeline import Lifeline
from trainer.meter import Meter
from trainer.model import network
from trainer.plan import Plan
from trainer.profiling import Profile
from trainer.storage import is_cloud

log = logging.getLogger("capsnet")

STOP_ON_REQUEST, STOP_ON_BUDGET = 1, 2
BUDGET_RESERVE = 1.5
"""Of the longest save so far: the last one may take longer, and must fit into the budget."""


@dataclass(frozen=True)
class Outcome:
    """How a run that reached its end did."""

    steps: int
    score: evaluation.Score
    trained_seconds: float


class Loop:
    """One process's part of a run. ``plan`` is None on every rank but the first."""

    def __init__(self, config: RunConfig, world: World, lifeline: Lifeline, plan: Plan | None) -> None:
        self.config, self.world, self.lifeline, self.plan = config, world, lifeline, plan
        self.began = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.index = data_index.load_index(config.data.uri, config.storage)
        split = data_index.split_of(self.index, config.data.train_split)
        self.records = split.records
        self.steps_per_epoch = data_index.steps_per_epoch(split, config.data.lanes, config.train.global_batch_size)
        self.total_steps = data_index.total_steps(config, self.index)

        self.network = network.build(config.model, precision=config.train.precision, seed=config.seed)
        self.update = optimizer.build_optimizer(config.optimizer, self.network.trainable_variables)
        learning_rate = optimizer.learning_rate(config.optimizer, self.steps_per_epoch, self.total_steps)
        self.loss_scale = training_step.LossScale.create(config)
        self.step_variable = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.run_step = training_step.make_step(
            config,
            self.network,
            self.update,
            learning_rate,
            self.loss_scale,
            self.step_variable,
            world,
            losses.spread_margin_schedule(config.loss, self.steps_per_epoch),
        )
        self.evaluate_batch = evaluation.make_evaluate_batch(config, self.network)

        # of the run: what a checkpoint holds beside tensors
        self.step = 0
        self.evaluated_step = -1
        self.best_accuracy: float | None = None
        self.trained_before = 0.0
        self.meter = Meter()
        self.damaged = 0  # records of this epoch
        # of this process
        self.input = Meter()  # over the whole of this process
        self.started = False
        self.score: evaluation.Score | None = None
        self.step_seconds = math.nan
        self.saved = (-1, -1)  # step and evaluated step of the last save
        self.saved_at = time.monotonic()
        self.save_wanted = False
        self.fixed_batch: dict[str, tf.Tensor] | None = None
        self.journal = Journal()
        self.writer: checkpoint.Writer | None = None
        self.profile: Profile | None = None

    @property
    def parameters(self) -> int:
        return sum(math.prod(variable.shape) for variable in self.network.trainable_variables)

    def input_line(self) -> str:
        """How much of the time this process waited for data, and for what, in words."""
        return self.input.input_line(remote=is_cloud(self.config.data.uri))

    # state

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint holds, by name."""
        means = weights.averages_of(self.network, self.update)
        kept = {id(mean) for mean in means.values()}
        slots = {f"optimizer/{v.path}": v.value for v in self.update.variables if id(v.value) not in kept}
        return {**weights.weights_of(self.network), **means, **slots, **self.loss_scale.variables()}

    def restore(self) -> None:
        """Rank 0 reads and opens its files, the others receive."""
        if self.plan is not None:
            self._restore_first(self.plan)
        counters = (self.step, self.evaluated_step, self.damaged)
        self.step, self.evaluated_step, self.damaged = distributed.broadcast_object(self.world, counters, "counters")
        distributed.broadcast(self.world, list(self.variables().values()), "state")
        self.step_variable.assign(self.step)

    def _restore_first(self, plan: Plan) -> None:
        directory = plan.directory
        if plan.resume is not None:
            weights.assign(self.variables(), plan.resume.tensors, plan.resume.path)
            state = plan.resume.state
            self.step, self.evaluated_step = self.saved = (state.step, state.evaluated_step)
            self.meter = Meter(state.meter_steps, state.meter_sums)
            self.best_accuracy = state.best_accuracy
            self.trained_before, self.damaged = state.trained_seconds, state.damaged
            log.info("resumed from %s", directory.told(plan.resume.path))
        checkpoint.take_back(directory.checkpoints, self.step)
        directory.take_back_metrics(self.step, self.evaluated_step)
        summaries.take_back(directory.path, self.step, self.evaluated_step)
        self.writer = checkpoint.Writer(
            directory.checkpoints, self.config.checkpoint.keep_last, plan.mirror.publish if plan.mirror else None
        )
        if plan.weights is not None:
            weights.take(self.network, plan.weights, new_head=plan.new_head)
            log.info("weights of %s%s", plan.weights_shown, ", with a new head" if plan.new_head else "")
            self._save()  # a resume before the first regular save must not start from random weights
            self.writer.wait()
        directory.write_config(self.config)
        if plan.mirror is not None:
            plan.mirror.follow()
        self.profile = Profile(self.config.log, directory.path, self.world)
        self.journal = FirstRankJournal(directory, self.config, self.network, self.index, self.total_steps)

    def _save(self) -> None:
        """Copies the state out and leaves the writing to the writer."""
        assert self.writer is not None
        tensors = weights.tensors_of(self.variables())
        state = checkpoint.State(
            step=self.step,
            data=data_index.fingerprint(self.index),
            evaluated_step=self.evaluated_step,
            test_accuracy=self.score.accuracy if self.score and self.evaluated_step == self.step else None,
            best_accuracy=self.best_accuracy,
            trained_seconds=self._trained_seconds(),
            meter_steps=self.meter.steps,
            meter_sums=dict(self.meter.sums),
            damaged=self.damaged,
        )
        self.journal.flush()
        self.writer.submit(state, configuration.dump(self.config), tensors)
        self.saved, self.saved_at, self.save_wanted = (self.step, self.evaluated_step), time.monotonic(), False

    # turns

    def run(self) -> Outcome:
        """Trains to the end; ``leave`` is to be called when all is said.

        Raises:
            InterruptedRun: stopped on request or by the budget; a checkpoint of the last step is saved.
            DivergedError: a loss or gradient is not finite; the checkpoint before it stands.
            DataError: a record cannot be used.
        """
        try:
            self.restore()
            stop = self._turns()
            self._finish()
        finally:
            self._close_journal()
            if self.profile is not None:
                self.profile.close()
            if self.writer is not None:
                self.writer.settle()
        if stop:
            raise self._stopped(stop)
        assert self.score is not None
        return Outcome(self.step, self.score, self._trained_seconds())

    def _close_journal(self) -> None:
        self.journal.close()
        self.journal = Journal()

    def leave(self, error: CapsnetError | None = None) -> None:
        """All ranks leave together, each with its verdict said: the first to leave takes the others down with it.

        What a run in a bucket has to store is stored before.
        """
        self.lifeline.mark("leaving", self.step, waits=True)
        try:  # whatever fails here: the others wait
            self._close_journal()
            if self.plan is not None and self.plan.mirror is not None:
                self.plan.mirror.close()
        except (CapsnetError, OSError) as failed:
            log.warning("%s; the last metrics and events were not stored", failed)
        distributed.barrier(self.world, "end")
        self.lifeline.verdict(error.exit_code if error else EXIT_DONE, str(error) if error else "")

    def _turns(self) -> int:
        """Returns the stop wish that ended them, 0 at the end of the run."""
        stop = 0
        if 0 < self.step < self.total_steps and self._evaluation_due() and self.evaluated_step != self.step:
            stop = self._evaluate()  # that a stop request had cut off
            self._save_if_due()
        batches = pipeline.train_batches(
            self.config, self.index, self.world.rank, self.world.size, self.step, self.total_steps - self.step
        )
        while self.step < self.total_steps and not stop:
            self._mark("input")
            asked_at = time.monotonic()
            waits_before = dict(batches.waits)
            batch = next(batches)
            got_at = time.monotonic()
            waits = {stage: waited - waits_before[stage] for stage, waited in batches.waits.items()}
            self._mark("training", waits=True)
            if self.profile is not None:
                self.profile.before(self.step + 1)
            report = self.run_step(batch, self._stop_wish())
            self._check(report)
            self.step += 1
            if self.profile is not None:
                self.profile.after(self.step)
            self._check_damaged(report)
            self._measure(report, waits, got_at - asked_at, time.monotonic() - asked_at)
            stop = report.stop
            self._record(report)
            if not stop and self.step < self.total_steps:
                if self._evaluation_due():
                    stop = self._evaluate()
                if not stop:
                    self._save_if_due()
        batches.close()
        if not stop and self.evaluated_step != self.step:
            stop = self._evaluate()
        elif not stop and self.score is None:  # a finished run that is started again has this in its records
            self._close_journal()
            stop = self._evaluate()
        return stop

    def _mark(self, phase: str, *, waits: bool = False) -> None:
        self.lifeline.mark(phase if self.started else wire.STARTING, self.step, waits=waits)

    def _check_damaged(self, report: training_step.Report) -> None:
        """Raises DataError on all ranks where an epoch has more damaged records than are tolerated."""
        if (self.step - 1) % self.steps_per_epoch == 0:
            self.damaged = 0
        self.damaged += report.damaged
        if report.damaged:
            log.info("step %d: did without %d damaged records, %d this epoch", self.step, report.damaged, self.damaged)
        if self.damaged > self.config.data.tolerate_damaged:
            error = DataError(
                f"{self.damaged} damaged records in this epoch, data.tolerate_damaged is "
                f"{self.config.data.tolerate_damaged}: 'capsnet data verify {self.config.data.uri}' lists them"
            )
            self.leave(error)
            raise error

    def _measure(self, report: training_step.Report, waits: dict[str, float], waited: float, seconds: float) -> None:
        self.meter.add(report, waits, waited, seconds if self.started else 0.0)
        if self.started:
            self.input.add_time(waits, waited, seconds)
        if self.started:  # a moving average over some twenty steps
            self.step_seconds = seconds if math.isnan(self.step_seconds) else 0.95 * self.step_seconds + 0.05 * seconds
        self.started = True

    def _trained_seconds(self) -> float:
        """Wall time of the run, over all its parts, from the start of the process."""
        return self.trained_before + time.monotonic() - self.began

    def _stop_wish(self) -> int:
        if self.lifeline.stop_requested:
            return STOP_ON_REQUEST
        budget = self.config.train.budget_seconds
        if budget and self.writer is not None:  # rank 0's clock counts
            step = 0.0 if math.isnan(self.step_seconds) else self.step_seconds
            needed = BUDGET_RESERVE * self.writer.longest_seconds + step
            if time.monotonic() - self.began + needed >= budget:
                return STOP_ON_BUDGET
        return 0

    def _check(self, report: training_step.Report) -> None:
        """Raises DivergedError on all ranks where training cannot go on; a float16 overflow is normal."""
        wrong = report.not_finite()
        if not wrong and not report.applied and not self.loss_scale.enabled:
            wrong = [f"the gradient on rank {rank}, with a finite loss" for rank in report.bad_gradients()]
        limit = self.config.train.max_skipped_steps
        if not wrong and self.loss_scale.enabled and int(self.loss_scale.skipped) >= limit:
            wrong = [f"the gradient, {limit} steps in a row at loss scale {float(self.loss_scale.scale):g}"]
        if not wrong:
            return
        error = DivergedError(
            f"diverged at step {self.step + 1}: not finite: {'; '.join(wrong)}; {self._last_good_checkpoint()}"
        )
        self.leave(error)
        raise error

    def _last_good_checkpoint(self) -> str:
        """One of the step before the failure is not good: its weights have just given what is not finite."""
        if self.writer is None or self.plan is None:
            return "rank 0 knows the checkpoints"
        self.writer.settle()
        for path in reversed(checkpoint.paths(self.plan.directory.checkpoints)):
            if checkpoint.step_of(path) < self.step:
                try:
                    return f"last good checkpoint: {self.plan.directory.told(checkpoint.read(path).path)}"
                except CheckpointError as error:
                    log.info("damaged checkpoint: %s", error)
        return "no checkpoint was saved before"

    def _record(self, report: training_step.Report) -> None:
        rule, meter = self.config.log, self.meter
        full = self.step % rule.every_steps == 0
        if full or self.step == self.total_steps:
            values = {
                "epoch": self.step / self.steps_per_epoch,
                "loss": meter.mean(training_step.LOSS),
                "accuracy": meter.mean(training_step.CORRECT),
                **{name: meter.mean(name) for name in report.terms},
                "learning_rate": report.learning_rate,
                "gradient_norm": report.gradient_norm,
                "images_per_second": meter.steps_per_second * self.config.train.global_batch_size,
                "step_seconds": 1 / meter.steps_per_second,
                "input_wait": meter.input_wait,
                **meter.input_waits(),
                **runtime.memory_peaks(),
            }
            self.journal.train(self.step, values, self._trained_seconds(), report.gradient_norms)
        if self.journal.progress_due:
            shown = {"loss": meter.mean(training_step.LOSS), "accuracy": meter.mean(training_step.CORRECT)}
            rate = self.config.train.global_batch_size / self.step_seconds
            eta = (self.total_steps - self.step) * self.step_seconds
            self.journal.show(self.step, self.step / self.steps_per_epoch, shown, rate, eta)
        if full:
            self.meter = Meter()
        if self.plan is not None and rule.observe_every_steps and self.step % rule.observe_every_steps == 0:
            self.journal.observe(self.step, self._fixed_batch())

    def _fixed_batch(self) -> dict[str, tf.Tensor]:
        """The first test records: looks at the same images can be compared."""
        if self.fixed_batch is None:
            with pipeline.test_batches(self.config, self.index, 0, 1) as batches:
                self.fixed_batch = next(batches)
        return self.fixed_batch

    def _evaluation_due(self) -> bool:
        every = self.config.evaluate.every_epochs
        return bool(every) and self.step % max(1, round(every * self.steps_per_epoch)) == 0

    def _evaluate(self) -> int:
        """Returns a stop wish if any rank had one; there is no score then."""
        began = time.monotonic()

        def before_batch(number: int) -> None:
            self._mark("evaluating")
            self.journal.now_and_then(f"step {self.step}/{self.total_steps}  evaluating, batch {number + 1}")

        with (
            optimizer.averaged(self.update, self.network.trainable_variables),
            pipeline.test_batches(self.config, self.index, self.world.rank, self.world.size) as batches,
        ):
            score = evaluation.evaluate(
                self.config, self.evaluate_batch, batches, self.world, before_batch, lambda: bool(self._stop_wish())
            )
        if score.stopped:
            return self._stop_wish() or STOP_ON_REQUEST
        evaluation.check_complete(self.config, self.index, score)
        self.score, self.evaluated_step = score, self.step
        self.best_accuracy = max(score.accuracy, self.best_accuracy or 0.0)
        epoch = self.step / self.steps_per_epoch
        summary = (
            f"epoch {epoch:.4g}: test accuracy {100 * score.accuracy:.2f} % of {score.records}, "
            f"loss {score.values['loss']:.4f} ({time.monotonic() - began:.1f} s)"
        )
        self.journal.test(self.step, epoch, score, summary)
        return 0

    def _save_if_due(self) -> None:
        """By steps, by time, or because this is the best score so far. On rank 0 only, and without a collective."""
        if self.writer is None:
            return
        self.writer.check()
        rule = self.config.checkpoint
        by_steps = bool(rule.every_steps) and self.step % rule.every_steps == 0
        by_time = bool(rule.every_seconds) and time.monotonic() - self.saved_at >= rule.every_seconds
        score = self.score if self.evaluated_step == self.step else None
        is_best = score is not None and score.accuracy == self.best_accuracy
        self.save_wanted |= by_steps or by_time or is_best
        # a save still being written is not waited for, unless the best score would be lost
        if self.save_wanted and (is_best or not self.writer.busy):
            self._save()

    def _finish(self) -> None:
        """The last save."""
        self.lifeline.mark("saving", self.step)
        if self.writer is not None:
            if self.saved != (self.step, self.evaluated_step):
                self._save()
            self.writer.wait()
            self.journal.end_line()

    def _stopped(self, stop: int) -> InterruptedRun:
        why = "stopped on request" if stop == STOP_ON_REQUEST else "the time budget is spent"
        hint = f"; to go on: {hints.command('train', self.plan.directory.shown)}" if self.plan else ""
        error = InterruptedRun(f"{why} at step {self.step} of {self.total_steps}, saved{hint}")
        self.leave(error)
        return error
