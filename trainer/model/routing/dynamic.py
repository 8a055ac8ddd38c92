"""Dynamic routing (Sabour, Frosst, Hinton 2017, "Dynamic Routing Between Capsules", procedure 1).

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations, N observed records.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.extra import dynamic as weights
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, collect, observe
from trainer.model.routing.votes import child_order, votes
from trainer.model.squash import at_least_float32, lengths, squash

__all__ = ["couplings", "route", "weights"]


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents by R iterations of routing by agreement; activations are lengths.

    Votes are a product in the dtype of the arguments, all else is in at least float32.

    Args:
        extra: what ``weights`` names.
        trace: also return what the couplings did; ``coupling_records`` of their records as they are.
    Returns:
        (parents, trace or None)
    """
    votes_IBJQ = votes(children.poses_BNP, transform)
    iterate = _iterate_compiled if config.xla else _iterate
    poses_BJQ, steps = iterate(
        votes_IBJQ,
        extra.get("bias"),
        iterations=config.iterations,
        leaky=config.leaky,
        stop_gradient=config.stop_gradient,
        trace=trace,
        records=coupling_records,
    )
    parents = Capsules(poses_BJQ, lengths(poses_BJQ))
    if not trace:
        return parents, None
    steps = [step._replace(coupling_INJ=child_order(step.coupling_INJ, transform.transforms, axis=0)) for step in steps]
    return parents, collect(steps, children, parents)


def couplings(routing_logits_IBJ: tf.Tensor, leaky: bool) -> tf.Tensor:
    """c_ij = softmax of b_ij over parents (equation 3).

    ``leaky``: a further parent with logit 0, 'none of the above' (section 6), takes its share and is left out,
    so that couplings sum to less than 1.
    """
    if not leaky:
        return tf.nn.softmax(routing_logits_IBJ, axis=-1)
    padded = tf.pad(routing_logits_IBJ, [[0, 0], [0, 0], [1, 0]])
    return tf.nn.softmax(padded, axis=-1)[..., 1:]


def _iterate(
    votes_IBJQ: tf.Tensor,
    bias_JQ: tf.Tensor | None,
    *,
    iterations: int,
    leaky: bool,
    stop_gradient: bool,
    trace: bool,
    records: int,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ = at_least_float32(votes_IBJQ)
    parents = votes_IBJQ.shape[2]
    steps: list[CouplingTrace] = []
    poses_sum_BJQ = poses_BJQ = None
    for iteration in range(iterations):
        last = iteration == iterations - 1
        seen_IBJQ = tf.stop_gradient(votes_IBJQ) if stop_gradient and not last else votes_IBJQ
        if poses_sum_BJQ is None:  # b_ij = 0: every outcome has the same share
            share = 1.0 / (parents + leaky)
            coupling_IBJ = None
            preactivation_BJQ = share * tf.reduce_sum(seen_IBJQ, axis=0)
        else:
            # b_ij <- b_ij + u_hat . v_j at each iteration (procedure 1, line 7) is u_hat . (sum of v_j so far)
            agreeing_IBJQ = tf.stop_gradient(votes_IBJQ) if stop_gradient else votes_IBJQ
            routing_logits_IBJ = tf.reduce_sum(agreeing_IBJQ * poses_sum_BJQ, axis=-1)
            coupling_IBJ = couplings(routing_logits_IBJ, leaky)
            preactivation_BJQ = tf.reduce_sum(coupling_IBJ[..., tf.newaxis] * seen_IBJQ, axis=0)  # equation 2
        if bias_JQ is not None:
            bias_JQ = tf.cast(bias_JQ, votes_IBJQ.dtype)
            held = stop_gradient and not last
            preactivation_BJQ += tf.stop_gradient(bias_JQ) if held else bias_JQ
        poses_BJQ = squash(preactivation_BJQ)  # equation 1
        poses_sum_BJQ = poses_BJQ if poses_sum_BJQ is None else poses_sum_BJQ + poses_BJQ
        if trace:
            if coupling_IBJ is None:
                coupling_IBJ = share * tf.ones_like(votes_IBJQ[..., 0])
            steps.append(observe(coupling_IBJ, leaky, records))
    return poses_BJQ, steps


# The product that makes the votes stays outside XLA: on a CPU that is a quarter faster than all of it inside.
_iterate_compiled = tf.function(_iterate, jit_compile=True)
