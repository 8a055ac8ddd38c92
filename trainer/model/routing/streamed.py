"""Dynamic routing whose votes are never stored, forward and backward.

The logits before an iteration are the product of a vote with the sum V of all parents' poses so far, so a block of
children needs nothing of the iterations before but V [B, J, Q]. The first iteration is one dense product. Backward,
the gradient of each V is summed over blocks from the last iteration to the second, and one more pass makes the
gradients of children and transform. With R iterations that is R + (R - 1) + 2 products of the size of one that makes
all votes (one more where not all is kept that memory has room for), against 3 where votes are stored.

Axes: B batch, I children, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule, pose_and_said
from trainer.model.routing.blocks import Blocks, FullBlocks, Kept, Pass, SharedBlocks, call
from trainer.model.routing.choice import Choice, Keep
from trainer.model.routing.trace import CouplingTrace, merged, observe

AHEAD = 2
"""Blocks that may be under way at once: enough to keep all threads busy, few enough to stay in cache."""


def streamed(
    poses_BIP: tf.Tensor,
    transform: Transform,
    bias_JQ: tf.Tensor | None,
    rule: Rule,
    choice: Choice,
    *,
    xla: bool,
    records: int | None = None,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    """Procedure 1 of Sabour et al. 2017: (poses_BJQ, what each iteration's couplings did).

    Equal to ``stored.stored`` but for rounding, in outputs and in gradients of first order.
    """
    steps: list[CouplingTrace] = []

    def run(poses_BIP: tf.Tensor, *weights: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
        parts, bias = (weights, None) if bias_JQ is None else (weights[:-1], weights[-1])
        kind = FullBlocks if poses_BIP.shape[1] == transform.transforms else SharedBlocks
        blocks = kind(poses_BIP, Transform(parts), (choice.transforms, choice.positions), rule.leaky, xla)
        forward = _Forward(blocks, bias, rule, xla, records)
        steps.extend(forward.steps)

        def gradient(pose_gradient_BJQ: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _gradient(forward, pose_gradient_BJQ, choice.keep)

        return forward.pose_BJQ, gradient

    weights = [*transform.parts_TPJQ, *([] if bias_JQ is None else [bias_JQ])]
    return tf.custom_gradient(run)(poses_BIP, *weights), steps


class _Forward:
    """All iterations, and what their gradient needs. Iterations count from 0; the first has no pass over blocks."""

    def __init__(self, blocks: Blocks, bias_JQ: tf.Tensor | None, rule: Rule, xla: bool, records: int | None) -> None:
        self.blocks, self.bias_JQ, self.rule, self.xla = blocks, bias_JQ, rule, xla
        self.share = 1.0 / (blocks.parents + rule.leaky)  # b_ij = 0: every outcome has the same
        self.preactivations = [self.share * blocks.first()]
        self.said_sums: list[tf.Tensor] = []  # V of iterations 1, 2, ...
        self.couplings: list[list[tf.Tensor]] = []  # of iterations 1, 2, ..., by block
        self.steps: list[CouplingTrace] = []
        self.pose_BJQ, said_BJQ = call(pose_and_said, xla, self.preactivations[0], bias_JQ, rule)
        if records is not None:
            coupling_1BJ = self.share * tf.ones_like(self.pose_BJQ[tf.newaxis, :, :, 0])
            step = observe(coupling_1BJ, rule.leaky, records)
            self.steps.append(step._replace(coupling_INJ=tf.repeat(step.coupling_INJ, blocks.children, axis=0)))
        for _ in range(rule.iterations - 1):
            self.said_sums.append(self.said_sums[-1] + said_BJQ if self.said_sums else said_BJQ)
            self._pass(records)
            self.pose_BJQ, said_BJQ = call(pose_and_said, xla, self.preactivations[-1], bias_JQ, rule)

    def _pass(self, records: int | None) -> None:
        said_BJQ = self.said_sums[-1]
        sum_BJQ, made, done = tf.zeros_like(said_BJQ), [], [said_BJQ]
        for k in _in_turn(len(self.blocks), done):
            sum_BJQ, coupling = self.blocks.forward(k, said_BJQ, sum_BJQ)
            made.append(coupling)
            done.append(sum_BJQ)
        self.preactivations.append(sum_BJQ)
        self.couplings.append(made)
        if records is not None:
            seen = [observe(coupling, self.rule.leaky, records) for coupling in made]
            coupling_INJ = self.blocks.in_child_order([step.coupling_INJ for step in seen])
            step = merged(seen, [self.blocks.size(k) for k in range(len(self.blocks))])
            self.steps.append(step._replace(coupling_INJ=coupling_INJ))


def _gradient(forward: _Forward, pose_gradient_BJQ: tf.Tensor, keep: Keep) -> tuple[tf.Tensor, ...]:
    """Of poses, the parts of the transform, and the bias if there is one."""
    rule, blocks, bias_JQ = forward.rule, forward.blocks, forward.bias_JQ
    last = rule.iterations - 1
    first = last if rule.stop_gradient else 0
    said_gradient_BJQ = tf.zeros_like(pose_gradient_BJQ)  # of what a parent says in the iteration that is looked at
    bias_gradients: list[tf.Tensor] = []
    first_BJQ: tf.Tensor | None = None
    passes: list[Pass] = []
    made: list[list[Kept]] = []
    for iteration in range(last, first - 1, -1):
        pose_part = pose_gradient_BJQ if iteration == last else tf.zeros_like(pose_gradient_BJQ)
        ds_BJQ, of_bias = call(
            _parents_gradient,
            forward.xla,
            forward.preactivations[iteration],
            bias_JQ,
            pose_part,
            said_gradient_BJQ,
            rule,
        )
        bias_gradients += [] if of_bias is None else [of_bias]
        if iteration == 0:
            first_BJQ = ds_BJQ
            break
        passes.append(Pass(forward.said_sums[iteration - 1], ds_BJQ))
        couplings: list[tf.Tensor | None] = list(forward.couplings[iteration - 1])
        if keep == "nothing":
            couplings = [None] * len(blocks)
        logits: list[tf.Tensor | None] = []
        if rule.stop_gradient:
            made.append([(coupling, None) for coupling in couplings])
            break
        done = [ds_BJQ]
        for k in _in_turn(len(blocks), done):
            said_gradient_BJQ, logits_gradient = blocks.backward(k, passes[-1], couplings[k], said_gradient_BJQ)
            logits.append(logits_gradient if keep == "all" else None)
            done.append(said_gradient_BJQ)
        made.append(list(zip(couplings, logits, strict=True)))
    found, done = [], [ds_BJQ]
    for k in _in_turn(len(blocks), done):
        kept = [pairs[k] for pairs in made]
        found.append(blocks.gradients(k, forward.share, first_BJQ, passes, kept, not rule.stop_gradient))
        done.append(tf.group(*found[-1]))  # both of them: each holds the votes' gradient until it is made
    of_poses, of_parts = blocks.joined(found)
    of_bias = [] if bias_JQ is None else [tf.cast(tf.add_n(bias_gradients), bias_JQ.dtype)]
    return (of_poses, *of_parts, *of_bias)


def _parents_gradient(
    preactivation_BJQ: tf.Tensor,
    bias_JQ: tf.Tensor | None,
    pose_gradient_BJQ: tf.Tensor,
    said_gradient_BJQ: tf.Tensor,
    rule: Rule,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Gradients of a preactivation and of the bias from those of pose and said sum."""
    sources = [preactivation_BJQ] if bias_JQ is None else [preactivation_BJQ, bias_JQ]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        targets = pose_and_said(preactivation_BJQ, bias_JQ, rule)
    found = tape.gradient(targets, sources, [pose_gradient_BJQ, said_gradient_BJQ])
    return found[0], None if bias_JQ is None else found[1]


def _in_turn(blocks: int, done: list[tf.Tensor | tf.Operation]) -> Iterator[int]:
    """Numbers of blocks, each to be started when all but ``AHEAD`` before it are done.

    TensorFlow would start them all at once, and hold all their votes.
    """
    for k in range(blocks):
        with tf.control_dependencies(done[:-AHEAD][-1:] or done[:1]):
            yield k
