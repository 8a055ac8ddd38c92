"""One training step: forward, backward, reduction over ranks, checks, update.

Axes: R ranks, K columns of the report (one row a rank), b records of this rank.

Every rank runs the same graph on every step. What the ranks must agree on (a stop request, a loss that is not finite)
travels in one small matrix that is reduced before the update, so that all of them act on the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from trainer import devices, distributed, losses, optimizer, weights
from trainer.config import RunConfig
from trainer.distributed import World
from trainer.model.network import CapsNet

STOP, DAMAGED, LOSS, CORRECT, GRADIENT_FINITE = "stop", "damaged", "loss", "correct", "gradient_finite"
NOT_TERMS = (STOP, DAMAGED, LOSS, CORRECT, GRADIENT_FINITE)


@dataclass(frozen=True)
class Report:
    """What one step says, the same on every rank."""

    columns: tuple[str, ...]
    table_RK: np.ndarray
    gradient_norms: dict[str, float]  # by layer, before clipping
    applied: bool
    learning_rate: float

    def mean(self, column: str) -> float:
        return float(self.table_RK[:, self.columns.index(column)].mean())

    @property
    def gradient_norm(self) -> float:
        """Of all weights, before clipping."""
        return math.hypot(*self.gradient_norms.values())

    @property
    def stop(self) -> int:
        """The strongest stop request of any rank; 0: go on."""
        return int(self.table_RK[:, self.columns.index(STOP)].max())

    @property
    def damaged(self) -> int:
        """Damaged records of the batch that were done without, over all ranks."""
        return int(self.table_RK[:, self.columns.index(DAMAGED)].sum())

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name not in NOT_TERMS)

    def bad_gradients(self) -> list[int]:
        """Ranks whose own gradient, before the reduction, is not finite; all where only the mean is not."""
        column = self.table_RK[:, self.columns.index(GRADIENT_FINITE)]
        return [int(rank) for rank in np.flatnonzero(column == 0)] or list(range(len(column)))

    def not_finite(self) -> list[str]:
        """'loss on rank 1 (terms: reconstruction)' for each rank whose loss is not finite."""
        found = []
        for rank, row in enumerate(self.table_RK):
            values = dict(zip(self.columns, row, strict=True))
            if not np.isfinite(values[LOSS]):
                wrong = [name for name in self.terms if not np.isfinite(values[name])]
                found.append(f"loss on rank {rank} (terms: {', '.join(wrong)})")
        return found


@dataclass(frozen=True)
class LossScale:
    """Dynamic loss scale of float16. Variables, as they belong in a checkpoint."""

    scale: tf.Variable
    good_steps: tf.Variable
    skipped: tf.Variable
    growth_steps: int
    enabled: bool

    @staticmethod
    def create(config: RunConfig) -> LossScale:
        enabled = config.train.precision == "float16"
        initial = config.train.initial_loss_scale if enabled else 1.0
        return LossScale(
            tf.Variable(initial, dtype=tf.float32, trainable=False, name="scale"),
            tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps"),
            tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped"),
            config.train.loss_scale_growth_steps,
            enabled,
        )

    def variables(self) -> dict[str, tf.Variable]:
        return {
            "loss_scale/scale": self.scale,
            "loss_scale/good_steps": self.good_steps,
            "loss_scale/skipped": self.skipped,
        }

    def update(self, finite: tf.Tensor) -> None:
        """Halves after an overflow, doubles after growth_steps good steps; counts overflows in a row."""
        if not self.enabled:
            return
        good = tf.where(finite, self.good_steps + 1, 0)
        grow = good >= self.growth_steps
        scale = tf.where(finite, tf.where(grow, self.scale * 2.0, self.scale), tf.maximum(self.scale / 2.0, 1.0))
        self.scale.assign(scale)
        self.good_steps.assign(tf.where(grow, tf.zeros_like(good), good))
        self.skipped.assign(tf.where(finite, tf.zeros_like(self.skipped), self.skipped + 1))


@dataclass(frozen=True)
class Step:
    """Trains one step, of a batch as of ``pipeline.train_batches`` and this rank's stop request.

    Attributes:
        graph: image, label, whole, stop and perhaps sources to (table_RK, norms_V, finite, rate).
        layers: of each variable.
    """

    graph: tf.types.experimental.PolymorphicFunction
    columns: tuple[str, ...]
    layers: tuple[str, ...]

    def __call__(self, batch: dict[str, tf.Tensor], stop: int) -> Report:
        sources = [batch["sources"]] if "sources" in batch else []
        table_RK, norms_V, finite, rate = self.graph(
            batch["image"], batch["label"], batch["whole"], tf.constant(stop, tf.int32), *sources
        )
        norms = _by_layer(self.layers, norms_V.numpy())
        return Report(self.columns, table_RK.numpy(), norms, bool(finite), float(rate))


def make_step(
    config: RunConfig,
    network: CapsNet,
    update: keras.optimizers.Optimizer,
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    loss_scale: LossScale,
    step: tf.Variable,
    world: World,
    spread_margin: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Step:
    """
    Args:
        learning_rate, spread_margin: of the step; the margin stays where it is None.

    The update is applied only where every rank's loss and the reduced gradient are finite.
    """
    variables = network.trainable_variables
    names = [variable.path for variable in variables]
    layers = [weights.layer_of(name) for name in names]
    term_names = losses.term_names(config.loss, network.decoder is not None)
    columns = [STOP, DAMAGED, GRADIENT_FINITE, LOSS, CORRECT, *term_names]
    dtype = tf.float64 if config.train.precision == "float64" else tf.float32

    fused = devices.whole_passes(config.train)

    @tf.function(jit_compile=fused, autograph=False)
    def forward_backward(
        image: tf.Tensor, label: tf.Tensor, sources: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = network(image, label)
            seen = image if sources is None else sources
            margin = None if spread_margin is None else spread_margin(step)
            terms = losses.loss_terms(config.loss, outputs, seen, label, margin)
            means = [tf.reduce_mean(tf.cast(terms[name], dtype)) for name in term_names]
            loss = tf.add_n(means)
            scaled = loss * tf.cast(loss_scale.scale, dtype)
        # a weight that the loss does not reach is left as it is: poses of classes that nothing decodes, for instance
        gradients = tape.gradient(
            scaled, [variable.value for variable in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        correct = tf.reduce_mean(tf.cast(losses.correct(outputs, label), dtype))
        return gradients, tf.stack([loss, correct, *means])

    def accumulated(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        parts = config.train.accumulate
        if parts == 1:
            return forward_backward(*inputs)
        cut = [tf.reshape(t, [parts, t.shape[0] // parts, *t.shape[1:]]) for t in inputs]

        def add(part: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            gradients, row = forward_backward(*(tensor[part] for tensor in cut))
            return (part + 1, *(s + g for s, g in zip(sums, [*gradients, row], strict=True)))

        zeros = [tf.zeros(v.shape, v.dtype) for v in variables] + [tf.zeros([2 + len(term_names)], dtype)]
        _, *sums = tf.while_loop(
            lambda part, *_: part < parts, add, (0, *zeros), parallel_iterations=1, maximum_iterations=parts
        )
        *gradients, row = [total / tf.cast(parts, total.dtype) for total in sums]
        return gradients, row

    @tf.function(jit_compile=fused, autograph=False)
    def apply(*gradients: tf.Tensor) -> tf.Tensor:
        update.apply(gradients, variables)
        return tf.constant(True)

    @tf.function(autograph=False)
    def train(
        image: tf.Tensor, label: tf.Tensor, whole: tf.Tensor, stop: tf.Tensor, *sources: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        gradients, row = accumulated(tf.cast(image, dtype), label, *sources)
        scale = loss_scale.scale.read_value()
        gradients = [gradient / tf.cast(scale, gradient.dtype) for gradient in gradients]
        own_finite = tf.cast(tf.math.is_finite(tf.linalg.global_norm(gradients)), dtype)
        gradients = distributed.mean_gradients(world, gradients, names, config.train.compression)
        damaged = tf.reduce_sum(tf.cast(~whole, dtype))
        row_1K = tf.concat([[tf.cast(stop, dtype), damaged, own_finite], row], 0)[None]
        table_RK = tf.pad(row_1K, [[world.rank, world.size - 1 - world.rank], [0, 0]])
        table_RK = distributed.sum_over_ranks(world, table_RK, "report")
        gradients, norms_V = optimizer.clip(gradients, config.optimizer.clip_norm)
        finite = tf.reduce_all(tf.math.is_finite(table_RK[:, columns.index(LOSS)]))
        finite &= tf.math.is_finite(tf.norm(norms_V))
        rate = learning_rate(step)

        update.learning_rate.assign(rate)
        tf.cond(finite, lambda: apply(*gradients), lambda: tf.constant(False))
        loss_scale.update(finite)
        step.assign_add(1)
        return table_RK, norms_V, finite, rate

    return Step(train, tuple(columns), tuple(layers))


def _by_layer(layers: Sequence[str], norms_V: np.ndarray) -> dict[str, float]:
    squares = dict.fromkeys(layers, 0.0)
    for layer, norm in zip(layers, norms_V, strict=True):
        squares[layer] += float(norm) ** 2
    return {layer: math.sqrt(square) for layer, square in squares.items()}
