"""Matrix capsules with EM routing (Hinton, Sabour, Frosst 2018, "Matrix capsules with EM routing", procedure 1).

A parent is a Gaussian, its pose the mean; children are its data, each weighted by its own activation. An M step fits
the Gaussians to the votes, an E step assigns the children to them. Vectors and matrices are the same to it: h of the
paper runs over the Q numbers of a pose.

Where the paper leaves a choice, or its text cannot be computed as it stands:
- The cost is taken per number of a pose and per child that a parent has on average (1/Q and parents/children times the
  paper's). This is the paper's with another beta_a and lambda for each layer, but activations start between 0 and 1 at
  any size, and the same values suit all layers.
- Variances have a floor: the one of a parent with a single child is 0, and its logarithm is not finite.
- lambda_t = lambda (1 - decay^t) at iteration t = 1, 2, ... (the paper: 'a fixed schedule').

Axes: B batch, I children, T transforms, J parents, Q pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.choice import choose_for
from trainer.model.routing.extra import em as weights
from trainer.model.routing.fan import Fan, log_softmax_over_parents
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, by_child, collect, observe_competition
from trainer.model.routing.votes import vote_order, votes
from trainer.model.squash import at_least_float32

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = False

VARIANCE_FLOOR = 1e-2  # a deviation of 0.1, of poses whose numbers are about 1; gradients grow with its inverse
SMALLEST = 1e-12  # of a child's activation: gradients of its logarithm stay far from float32's end
LARGEST = 1e10  # of a number of a vote: its square over a squared variance is a float32


class Rule(NamedTuple):
    """What of a configuration and of a layer changes the result."""

    iterations: int
    leaky: bool
    stop_gradient: bool
    inverse_temperature: float
    inverse_temperature_decay: float
    parents_per_child: float
    fan: Fan | None


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents by R iterations of expectation and maximisation, with gradients through all of them.

    Arguments and result are those of ``dynamic.route``, but that poses are means of votes, of any length, and
    activations are logistic. The couplings are R_ij, before they are multiplied by the children's activations; in a
    convolutional layer they sum to 1 over all parents in all windows of a child.
    """
    parents_per_child = transform.parents / children.poses_BNP.shape[1]
    if transform.fan is not None:  # of the whole grid, whose windows share children
        parents_per_child *= transform.fan.windows_per_child
    rule = Rule(
        config.iterations,
        config.leaky,
        config.stop_gradient,
        config.em.inverse_temperature,
        config.em.inverse_temperature_decay,
        parents_per_child,
        transform.fan,
    )
    given = (
        votes(children.poses_BNP, transform),
        vote_order(tf.transpose(children.activations_BN), transform.transforms),
        dict(extra),
    )
    steps: list[CouplingTrace] = []
    if not trace and choose_for(config, children.poses_BNP, transform).keep == "nothing":
        poses_BJQ, activations_BJ = _made_again(*given, rule)
    else:
        iterate = _iterate_compiled if config.xla else _iterate
        poses_BJQ, activations_BJ, steps = iterate(*given, rule=rule, records=coupling_records if trace else None)
    parents = Capsules(poses_BJQ, activations_BJ)
    return parents, collect(by_child(steps, transform.transforms), children, parents) if trace else None


def _iterate(
    votes_IBJQ: tf.Tensor,
    activations_IB: tf.Tensor,
    extra: Mapping[str, tf.Tensor],
    *,
    rule: Rule,
    records: int | None,
) -> tuple[tf.Tensor, tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ = tf.clip_by_value(at_least_float32(votes_IBJQ), -LARGEST, LARGEST)
    dtype = votes_IBJQ.dtype
    beta_activation_J, beta_cost_J = (tf.cast(extra[name], dtype) for name in ("beta_activation", "beta_cost"))
    activations_IB1 = tf.maximum(tf.cast(activations_IB, dtype), SMALLEST)[..., tf.newaxis]
    log_assignment_IBJ = _first_log_assignment(votes_IBJQ, rule)
    steps: list[CouplingTrace] = []
    for t in range(1, rule.iterations + 1):
        if rule.stop_gradient and t == rule.iterations:
            log_assignment_IBJ = tf.stop_gradient(log_assignment_IBJ)
        assignment_IBJ = tf.exp(log_assignment_IBJ)
        if records is not None:
            steps.append(observe_competition(assignment_IBJ, rule.leaky, records, rule.fan))

        # M step. R_ij <- R_ij a_i; means and variances with R_ij / sum_i R_ij, which is a softmax over children of the
        # logarithms: right also for a parent that has no children, where both are 0
        data_BJ = tf.reduce_sum(assignment_IBJ * activations_IB1, axis=0)
        share_IBJ1 = tf.nn.softmax(log_assignment_IBJ + tf.math.log(activations_IB1), axis=0)[..., tf.newaxis]
        mean_BJQ = tf.reduce_sum(share_IBJ1 * votes_IBJQ, axis=0)
        square_IBJQ = tf.square(votes_IBJQ - mean_BJQ)
        variance_BJQ = tf.reduce_sum(share_IBJ1 * square_IBJQ, axis=0) + VARIANCE_FLOOR
        log_deviation_BJQ = 0.5 * tf.math.log(variance_BJQ)
        # cost^h = (beta_u + ln sigma^h) sum_i R_ij, its mean over h
        cost_BJ = (beta_cost_J + tf.reduce_mean(log_deviation_BJQ, axis=-1)) * data_BJ * rule.parents_per_child
        inverse_temperature = rule.inverse_temperature * (1.0 - rule.inverse_temperature_decay**t)
        presence_BJ = inverse_temperature * (beta_activation_J - cost_BJ)  # a_j = logistic of it

        # E step. ln p_j up to a constant; R_ij is the softmax of ln a_j + ln p_j
        if t < rule.iterations:
            log_density_IBJ = -0.5 * tf.reduce_sum(square_IBJQ / variance_BJQ, axis=-1)
            log_density_IBJ -= tf.reduce_sum(log_deviation_BJQ, axis=-1)
            logits_IBJ = tf.math.log_sigmoid(presence_BJ) + log_density_IBJ
            log_assignment_IBJ = log_softmax_over_parents(logits_IBJ, rule.fan, rule.leaky)
    if "bias" in extra:
        mean_BJQ += tf.cast(extra["bias"], dtype)
    return mean_BJQ, tf.sigmoid(presence_BJ), steps


def _first_log_assignment(votes_IBJQ: tf.Tensor, rule: Rule) -> tf.Tensor:
    """R_ij = 1 / number of parents that i can reach.

    Of one record, repeated: XLA computes what is constant while it compiles, which for all took most of the time.
    """
    children, _, parents, _ = votes_IBJQ.shape
    windows = rule.fan.windows**2 if rule.fan else 1
    logits_IWJ = tf.zeros([children, windows, parents], votes_IBJQ.dtype)
    log_assignment_IWJ = log_softmax_over_parents(logits_IWJ, rule.fan, rule.leaky)
    return tf.tile(log_assignment_IWJ, [1, tf.shape(votes_IBJQ)[1] // windows, 1])


def _made_again(
    votes_IBJQ: tf.Tensor, activations_IB: tf.Tensor, extra: Mapping[str, tf.Tensor], rule: Rule
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same, of which only the arguments are held until the gradient, which makes the iterations again.

    With 3 iterations that held 0.28 of the memory, in 1.3 to 1.4 of the time (two threads, beside other work).
    """
    names = sorted(extra)

    def run(
        votes_IBJQ: tf.Tensor, activations_IB: tf.Tensor, *weights: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], Callable[..., tuple[tf.Tensor, ...]]]:
        given = (votes_IBJQ, activations_IB, dict(zip(names, weights, strict=True)))
        poses_BJQ, activations_BJ, _ = _iterate_compiled(*given, rule=rule, records=None)

        def gradient(*of_results: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_votes, of_activations, of_extra = _gradient_compiled(*given, of_results, rule=rule)
            return (of_votes, of_activations, *(of_extra[name] for name in names))

        return (poses_BJQ, activations_BJ), gradient

    return tf.custom_gradient(run)(votes_IBJQ, activations_IB, *(extra[name] for name in names))


def _gradient(
    votes_IBJQ: tf.Tensor,
    activations_IB: tf.Tensor,
    extra: Mapping[str, tf.Tensor],
    of_results: tuple[tf.Tensor, ...],
    *,
    rule: Rule,
) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
    given = (votes_IBJQ, activations_IB, dict(extra))
    with tf.GradientTape() as tape:
        tape.watch(given)
        poses_BJQ, activations_BJ, _ = _iterate(*given, rule=rule, records=None)
    return tape.gradient(
        (poses_BJQ, activations_BJ), given, of_results, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


_gradient_compiled = tf.function(_gradient, jit_compile=True)
_iterate_compiled = tf.function(_iterate, jit_compile=True)  # without the votes, as in dynamic routing
