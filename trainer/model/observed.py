"""What routing did to a few records, measured beside it and never in it: nothing here is part of a step.

Axes: N records, W windows (1 but in convolutional layers), X = N x W, I children of a window, T transforms, J parents,
P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from trainer.model import routing
from trainer.model.capsules import CapsuleLayer
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.fan import children_on_grid
from trainer.model.routing.trace import RoutingTrace

SMALLEST = 1e-12  # under the roots and sums that are divided by


class Observed(NamedTuple):
    """Of one capsule layer; None where a measure has no meaning for it."""

    winner_changed: tf.Tensor | None
    """Share of windows whose most active parent is another than with uniform couplings, which the first iteration of
    every algorithm that iterates has. Of all records of the trace; None for self-routing, whose parents are all equally
    active under uniform couplings."""
    favourite_changed: tf.Tensor | None
    """Share of children whose largest coupling is to another parent in the last iteration than in the second, which is
    the first that has a preference."""
    agreement: tf.Tensor
    """Mean cosine of a vote for the most active parent and that parent's pose, weighted by coupling, -1..1."""
    agreement_of_all: tf.Tensor
    """The same with equal weights. Where routing works, it is smaller."""


def observe(layer: CapsuleLayer, trace: RoutingTrace) -> Observed:
    """Measures the first N records of a trace, N being those whose couplings it holds, and its winners in all records.

    Votes are made anew, for one parent of one window at a time: neither [N, I, J, Q] nor [N, I, J] is made.
    """
    coupling_RXIJ = by_window(layer, trace.coupling_RNIJ)
    present_XI = _present(layer, coupling_RXIJ)
    records = trace.coupling_RNIJ.shape[1]
    children, parents = (Capsules(*(part[:records] for part in each)) for each in (trace.children, trace.parents))
    winner_X = _winner(layer, parents)
    agreement_XI = _agreement(layer, children, parents, winner_X)
    coupling_XI = present_XI * tf.gather(coupling_RXIJ[-1], winner_X, axis=2, batch_dims=1)
    return Observed(
        winner_changed=_winner_changed(layer, trace),
        favourite_changed=_favourite_changed(coupling_RXIJ, present_XI),
        agreement=_mean(agreement_XI, coupling_XI),
        agreement_of_all=_mean(agreement_XI, present_XI),
    )


def by_window(layer: CapsuleLayer, coupling_RNIJ: tf.Tensor) -> tf.Tensor:
    """Couplings of a trace with a window's children apart: [R, N, W x I, J] -> [R, X, I, J]."""
    iterations, _, _, parents = coupling_RNIJ.shape
    return tf.reshape(coupling_RNIJ, [iterations, -1, layer.children, parents])


def _present(layer: CapsuleLayer, coupling_RXIJ: tf.Tensor) -> tf.Tensor:
    """1 for each child of each window, 0 for what lies beside the grid, [X, I]."""
    ones_XI = tf.ones_like(coupling_RXIJ[0, :, :, 0])
    grid_IW = children_on_grid(layer.fan, layer.children)
    if grid_IW is None:
        return ones_XI
    ones_NWI = tf.reshape(ones_XI, [-1, grid_IW.shape[1], layer.children])
    return tf.reshape(ones_NWI * tf.constant(grid_IW.T, ones_XI.dtype), [-1, layer.children])


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(weights * values) / tf.maximum(tf.reduce_sum(weights), SMALLEST)


def _winner(layer: CapsuleLayer, parents: Capsules) -> tf.Tensor:
    return tf.argmax(tf.reshape(parents.activations_BN, [-1, layer.parents]), axis=-1)


def _winner_changed(layer: CapsuleLayer, trace: RoutingTrace) -> tf.Tensor | None:
    """Against the first iteration alone, whose couplings are uniform; or where there is but one, against those."""
    if trace.entropy_R.shape[0] > 1:
        reference = layer.routing.model_copy(update={"iterations": 1})
    elif routing.get(layer.routing.algorithm).ACTIVATED_BY_LENGTH:
        reference = layer.routing.model_copy(update={"algorithm": "uniform"})
    else:
        return None
    uniform, _ = layer(trace.children, config=reference)
    return tf.reduce_mean(_differs(_winner(layer, trace.parents), _winner(layer, uniform)))


def _favourite_changed(coupling_RXIJ: tf.Tensor, present_XI: tf.Tensor) -> tf.Tensor | None:
    if coupling_RXIJ.shape[0] < 3:
        return None
    differs_XI = _differs(tf.argmax(coupling_RXIJ[1], axis=-1), tf.argmax(coupling_RXIJ[-1], axis=-1))
    return _mean(differs_XI, tf.cast(present_XI, differs_XI.dtype))


def _differs(ours: tf.Tensor, theirs: tf.Tensor) -> tf.Tensor:
    return tf.cast(ours != theirs, tf.float32)


def _agreement(layer: CapsuleLayer, children: Capsules, parents: Capsules, winner_X: tf.Tensor) -> tf.Tensor:
    """Cosine of each child's vote for its window's winner and the winner's pose, [X, I]."""
    poses_XIP, transform = layer.projected(layer.seen(children).poses_BNP)  # both in at least float32 out here
    pose_XJQ = tf.reshape(parents.poses_BNP, [-1, layer.parents, layer.pose])
    winner_pose_XQ = tf.gather(pose_XJQ, winner_X, axis=1, batch_dims=1)

    def of_window(window: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        poses_IP, winner, pose_Q = window
        return _cosine(_votes_for(winner, poses_IP, transform), pose_Q)

    return tf.map_fn(
        of_window,
        (poses_XIP, winner_X, winner_pose_XQ),
        fn_output_signature=winner_pose_XQ.dtype,
        parallel_iterations=1,
    )


def _votes_for(parent: tf.Tensor, poses_IP: tf.Tensor, transform: Transform) -> tf.Tensor:
    """[I, Q]; children i mod T share a transform."""
    transform_TPQ = tf.concat([tf.gather(part, parent, axis=2) for part in transform.parts_TPJQ], axis=0)
    poses_NTP = tf.reshape(poses_IP, [-1, *transform_TPQ.shape[:2]])
    votes_NTQ = tf.einsum("ntp,tpq->ntq", poses_NTP, transform_TPQ)
    return tf.reshape(votes_NTQ, [-1, transform_TPQ.shape[2]])


def _cosine(votes_IQ: tf.Tensor, pose_Q: tf.Tensor) -> tf.Tensor:
    lengths_I = tf.norm(votes_IQ, axis=-1) * tf.norm(pose_Q)
    return tf.linalg.matvec(votes_IQ, pose_Q) / tf.maximum(lengths_I, SMALLEST)
