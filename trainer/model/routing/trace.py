"""What can be seen of routing, as plain tensors.

Axes: B batch, I children, J parents, Q parent pose size, R routing iterations, N observed records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.model.routing import Capsules
from trainer.model.routing.fan import Fan, children_on_grid, sum_over_windows, windows_of_each_child
from trainer.model.routing.votes import child_order


class RoutingTrace(NamedTuple):
    """One look at one capsule layer. Means are over records and children."""

    entropy_R: tf.Tensor  # mean entropy of a child's couplings over its largest value, 0..1: 1 is uniform
    effective_parents_R: tf.Tensor  # mean exp(entropy): how many outcomes a child is spread over
    unassigned_R: tf.Tensor  # mean coupling that goes to none of the parents; 0 unless leaky
    children: Capsules  # of the layer, whole
    parents: Capsules
    coupling_RNIJ: tf.Tensor  # of the first N records; N is 0 unless asked for


class CouplingTrace(NamedTuple):
    """The part of a trace that is made inside the iterations, one of each per iteration."""

    entropy: tf.Tensor
    effective_parents: tf.Tensor
    unassigned: tf.Tensor
    coupling_INJ: tf.Tensor


def observe(coupling: tf.Tensor, leaky: bool, records: int, fan: Fan | None = None) -> CouplingTrace:
    """Statistics of couplings that sum to 1 over J, or with ``leaky`` to 1 less what goes to none of them.

    The outcomes of a child are its J parents, and with ``leaky`` also none of them: entropy is over all outcomes
    and divided by ln of their number.

    Args:
        coupling: [I, B, J], or any other with B second and J last.
        fan: of a convolutional layer, whose B are windows: what lies beside the grid does not count.
    """
    return observe_present(coupling, leaky, records, children_on_grid(fan, coupling.shape[0]))


def observe_present(coupling: tf.Tensor, leaky: bool, records: int, present_IW: np.ndarray | None) -> CouplingTrace:
    """As ``observe``, of the children that are present in each window; None: of all."""

    def mean(values: tf.Tensor) -> tf.Tensor:
        if present_IW is None:
            return tf.reduce_mean(values)
        values_IBW = tf.reshape(values, [present_IW.shape[0], -1, present_IW.shape[1]])
        weights_I1W = tf.constant(present_IW[:, np.newaxis], values.dtype)
        counted = tf.reduce_sum(weights_I1W) * tf.cast(tf.shape(values_IBW)[1], values.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(values_IBW * weights_I1W), counted)

    outcomes = coupling.shape[-1] + leaky
    missing = tf.maximum(1.0 - tf.reduce_sum(coupling, axis=-1), 0.0) if leaky else None
    entropy = -tf.reduce_sum(_p_log_p(coupling), axis=-1)
    if missing is not None:
        entropy -= _p_log_p(missing)
    return CouplingTrace(
        entropy=mean(entropy) / math.log(max(outcomes, 2)),  # of a single outcome it is 0
        effective_parents=mean(tf.exp(entropy)),
        unassigned=tf.zeros([], coupling.dtype) if missing is None else mean(missing),
        coupling_INJ=coupling[:, :records],
    )


def merged(steps: Sequence[CouplingTrace], children: Sequence[float]) -> CouplingTrace:
    """The statistics of all children from those of blocks of so many; the couplings are those of the first."""
    share = [count / sum(children) for count in children]

    def mean(values: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.add_n([weight * value for weight, value in zip(share, values, strict=True)])

    return CouplingTrace(
        mean([step.entropy for step in steps]),
        mean([step.effective_parents for step in steps]),
        mean([step.unassigned for step in steps]),
        steps[0].coupling_INJ,
    )


def observe_competition(coupling_IBJ: tf.Tensor, leaky: bool, records: int, fan: Fan | None) -> CouplingTrace:
    """As ``observe``, of couplings that sum to 1 over all parents in all windows of a child."""
    if fan is None:
        return observe(coupling_IBJ, leaky, records)
    windows = windows_of_each_child(fan)
    types = coupling_IBJ.shape[0] // fan.kernel**2
    seen = [position * types + t for position, count in enumerate(windows) if count for t in range(types)]
    outcomes = [count * coupling_IBJ.shape[-1] + leaky for count in windows if count for _ in range(types)]

    def by_child(values_IB: tf.Tensor) -> tf.Tensor:
        return tf.gather(sum_over_windows(values_IB, fan), seen, axis=1)

    entropy_BN = -by_child(tf.reduce_sum(_p_log_p(coupling_IBJ), axis=-1))
    unassigned = tf.zeros([], coupling_IBJ.dtype)
    if leaky:
        missing_BN = tf.maximum(1.0 - by_child(tf.reduce_sum(coupling_IBJ, axis=-1)), 0.0)
        entropy_BN -= _p_log_p(missing_BN)
        unassigned = tf.reduce_mean(missing_BN)
    largest_N = tf.constant([math.log(max(count, 2)) for count in outcomes], entropy_BN.dtype)
    return CouplingTrace(
        entropy=tf.reduce_mean(entropy_BN / largest_N),
        effective_parents=tf.reduce_mean(tf.exp(entropy_BN)),
        unassigned=unassigned,
        coupling_INJ=coupling_IBJ[:, :records],
    )


def _p_log_p(p: tf.Tensor) -> tf.Tensor:
    return p * tf.math.log(tf.maximum(p, 1e-30))  # 0 at 0; 1e-30 is a float32 and no coupling that matters


def collect(steps: list[CouplingTrace], children: Capsules, parents: Capsules) -> RoutingTrace:
    """The trace of a layer from what was seen at each iteration."""
    return RoutingTrace(
        entropy_R=tf.stack([step.entropy for step in steps]),
        effective_parents_R=tf.stack([step.effective_parents for step in steps]),
        unassigned_R=tf.stack([step.unassigned for step in steps]),
        children=children,
        parents=parents,
        coupling_RNIJ=tf.stack([tf.transpose(step.coupling_INJ, [1, 0, 2]) for step in steps]),
    )


def by_child(steps: Sequence[CouplingTrace], transforms: int) -> list[CouplingTrace]:
    """Couplings that are in the order of votes brought into that of the children."""
    return [step._replace(coupling_INJ=child_order(step.coupling_INJ, transforms, axis=0)) for step in steps]


def following(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """One trace of iterations that were traced one by one, with the capsules of the last."""
    by_iteration = {
        name: tf.concat([getattr(trace, name) for trace in traces], axis=0)
        for name in ("entropy_R", "effective_parents_R", "unassigned_R", "coupling_RNIJ")
    }
    return traces[-1]._replace(**by_iteration)
