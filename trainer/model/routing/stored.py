"""Dynamic routing with all votes in memory: the plain form, differentiated by TensorFlow.

Axes: B batch, I children, J parents, Q parent pose size.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule, couplings, pose_and_said, wide
from trainer.model.routing.trace import CouplingTrace, by_child, observe
from trainer.model.routing.votes import votes


def stored(
    poses_BIP: tf.Tensor,
    transform: Transform,
    weights: Sequence[tf.Tensor],
    rule: Rule,
    *,
    xla: bool,
    records: int | None = None,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    """Procedure 1 of Sabour et al. 2017: (poses_BJQ, what each iteration's couplings did).

    ``records``: None observes nothing. The product that makes the votes stays outside XLA: on a CPU that is a quarter
    faster than all of it inside.
    """
    iterate = _iterate_compiled if xla else _iterate
    poses_BJQ, steps = iterate(votes(poses_BIP, transform), weights, rule=rule, records=records)
    return poses_BJQ, by_child(steps, transform.transforms)


def _iterate(
    votes_IBJQ: tf.Tensor, weights: Sequence[tf.Tensor], *, rule: Rule, records: int | None
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    votes_IBJQ, compared_IBJQ = wide(votes_IBJQ, rule.cosine)
    if rule.stop_gradient:
        compared_IBJQ = tf.stop_gradient(compared_IBJQ)
    parents = votes_IBJQ.shape[2]
    steps: list[CouplingTrace] = []
    said_sum_BJQ = poses_BJQ = None
    for iteration in range(rule.iterations):
        held = rule.stop_gradient and iteration < rule.iterations - 1
        seen_IBJQ = tf.stop_gradient(votes_IBJQ) if held else votes_IBJQ
        if said_sum_BJQ is None:  # b_ij = 0: every outcome has the same share
            share = 1.0 / (parents + rule.leaky)
            coupling_IBJ = None
            preactivation_BJQ = share * tf.reduce_sum(seen_IBJQ, axis=0)
        else:
            coupling_IBJ = couplings(tf.reduce_sum(compared_IBJQ * said_sum_BJQ, axis=-1), rule.leaky)
            preactivation_BJQ = tf.reduce_sum(coupling_IBJ[..., tf.newaxis] * seen_IBJQ, axis=0)  # equation 2
        held_weights = [tf.stop_gradient(weight) for weight in weights] if held else weights
        poses_BJQ, said_BJQ = pose_and_said(preactivation_BJQ, held_weights, rule)
        said_sum_BJQ = said_BJQ if said_sum_BJQ is None else said_sum_BJQ + said_BJQ
        if records is not None:
            if coupling_IBJ is None:
                coupling_IBJ = share * tf.ones_like(votes_IBJQ[..., 0])
            steps.append(observe(coupling_IBJ, rule.leaky, records, rule.fan))
    return poses_BJQ, steps


_iterate_compiled = tf.function(_iterate, jit_compile=True)
