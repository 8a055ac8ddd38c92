"""Learning rate as a pure function of the step, the optimizer, and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from trainer.config import OptimizerConfig
from trainer.model import parts

DECAYED = ("kernel", "depthwise_kernel", "pointwise_kernel", "transform", "projection")
"""Last parts of the paths of variables that weight decay applies to."""


def learning_rate(
    config: OptimizerConfig, steps_per_epoch: float, total_steps: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Step (number of updates made before, an int64 scalar) -> learning rate (a float32 scalar).

    Warm-up: update s of W has (s + 1) / W of the rate, so that no update is wasted on a rate of 0.
    constant: the peak. cosine: from the peak after the warm-up to ``final_fraction`` of it at ``total_steps``.
    step: times ``decay_rate`` at each of ``decay_epochs``. exponential: ``decay_rate`` is reached after
    ``decay_epochs[0]`` epochs, continuously. Epochs are counted from the start of the run.
    """
    schedule = {"constant": _constant, "cosine": _cosine, "step": _step, "exponential": _exponential}[config.schedule]
    fraction = schedule(config, steps_per_epoch, total_steps)

    def rate(step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step, tf.float64)  # float32 counts steps only up to 2^24
        warm = tf.minimum((done + 1.0) / max(config.warmup_steps, 1), 1.0)
        return tf.cast(config.learning_rate * warm * fraction(done), tf.float32)

    return rate


Fraction = Callable[[tf.Tensor], tf.Tensor]


def _constant(config: OptimizerConfig, steps_per_epoch: float, total_steps: int) -> Fraction:
    return tf.ones_like


def _cosine(config: OptimizerConfig, steps_per_epoch: float, total_steps: int) -> Fraction:
    """Loshchilov and Hutter 2017, equation 5, without restarts."""
    length = max(total_steps - config.warmup_steps, 1)

    def fraction(done: tf.Tensor) -> tf.Tensor:
        progress = tf.clip_by_value((done - config.warmup_steps) / length, 0.0, 1.0)
        return config.final_fraction + (1.0 - config.final_fraction) * 0.5 * (1.0 + tf.cos(math.pi * progress))

    return fraction


def _step(config: OptimizerConfig, steps_per_epoch: float, total_steps: int) -> Fraction:
    boundaries = tf.constant([math.ceil(epoch * steps_per_epoch) for epoch in config.decay_epochs], tf.float64)

    def fraction(done: tf.Tensor) -> tf.Tensor:
        passed = tf.reduce_sum(tf.cast(done >= boundaries, tf.float64))
        return tf.pow(tf.constant(config.decay_rate, tf.float64), passed)

    return fraction


def _exponential(config: OptimizerConfig, steps_per_epoch: float, total_steps: int) -> Fraction:
    length = config.decay_epochs[0] * steps_per_epoch

    def fraction(done: tf.Tensor) -> tf.Tensor:
        return tf.pow(tf.constant(config.decay_rate, tf.float64), done / length)

    return fraction


def build_optimizer(config: OptimizerConfig, variables: Sequence[keras.Variable]) -> keras.optimizers.Optimizer:
    """An optimizer with all its slots. Its learning rate is to be assigned before each update:

        optimizer.learning_rate.assign(rate(step)); optimizer.apply(gradients, variables)

    Adam (Kingma and Ba 2015) or SGD with Nesterov momentum; weight decay is decoupled (Loshchilov and Hutter
    2019): w <- w - rate * decay * w, for kernels, transforms and projections only. With ``average_decay`` d its slots
    hold means of the weights, m <- d m + (1 - d) w after each update; the first update sets m to w.
    """
    decay = config.weight_decay or None
    mean = {"use_ema": True, "ema_momentum": config.average_decay} if config.average_decay else {}
    if config.kind == "adam":
        optimizer = keras.optimizers.Adam(
            config.learning_rate,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
            weight_decay=decay,
            name="optimizer",
            **mean,
        )
    else:
        optimizer = keras.optimizers.SGD(
            config.learning_rate, momentum=config.momentum, nesterov=True, weight_decay=decay, name="optimizer", **mean
        )
    if decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if not is_decayed(v.path)])
    optimizer.build(list(variables))
    return optimizer


def averages(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """The mean of each variable by the variable's path; empty where the optimizer keeps none."""
    if not optimizer.use_ema:
        return {}
    slots = {slot.path: slot for slot in optimizer.variables}
    return {v.path: slots[f"{optimizer.name}/{v.path.replace('/', '_')}_average"] for v in variables}


@contextmanager
def averaged(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Within it variables have the values of their means, if there are any."""
    means = averages(optimizer, variables)
    trained = [v.numpy() for v in variables] if means else []
    for v in variables if means else []:
        v.assign(means[v.path])
    try:
        yield
    finally:
        for v, value in zip(variables if means else [], trained, strict=True):
            v.assign(value)


def is_decayed(path: str) -> bool:
    """Whether weight decay applies to a variable: to kernels, transforms and projections, not to biases and norms."""
    return parts.whole(path.rsplit("/", 1)[-1]) in DECAYED


def clip(gradients: Sequence[tf.Tensor], norm: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients scaled down to a global norm of at most ``norm`` (0: as they are), and the norm of each before, [V].

    A norm that is not finite makes every gradient NaN, as in TensorFlow: check it before the update.
    """
    norms_V = tf.stack([tf.norm(gradient) for gradient in gradients])
    if not norm:
        return list(gradients), norms_V
    return tf.clip_by_global_norm(gradients, norm, use_norm=tf.norm(norms_V))[0], norms_V
