"""Routing by agreement whose votes are never stored, forward and backward.

The logits before an iteration are the product of a vote with one vector V of its parent: in dynamic routing the sum of
the parent's poses so far. So a block of children needs nothing of the iterations before but V [B, J, Q]. The first
iteration is one dense product. Backward, the gradient of each V is summed over blocks from the last iteration to the
second, and one more pass makes the gradients of children and transform. With R iterations that is R + (R - 1) + 2
products of the size of one that makes all votes (one more where not all is kept that memory has room for, and by
cosine, where the last pass needs the votes' directions), against 3 where votes are stored.

Axes: B batch, I children, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule
from trainer.model.routing.blocks import Blocks, Kept, Pass, Sums, call
from trainer.model.routing.choice import Choice, Keep
from trainer.model.routing.fan import children_on_grid
from trainer.model.routing.full_blocks import FullBlocks
from trainer.model.routing.shared_blocks import SharedBlocks
from trainer.model.routing.shared_votes import SharedVotes
from trainer.model.routing.trace import CouplingTrace, merged, observe, observe_present

AHEAD = 2
"""Blocks that may be under way at once: enough to keep all threads busy, few enough to stay in cache."""


Say = Callable[[tf.Tensor, Sequence[tf.Tensor], Rule], tuple[tf.Tensor, tf.Tensor]]
"""Of a preactivation s [B, J, Q], the parents' weights and the rule: (poses, what is added to V or takes its place).
A function of a module, as its compiled form is kept."""


def streamed(
    poses_BIP: tf.Tensor,
    transform: Transform,
    weights: Sequence[tf.Tensor],
    say: Say,
    rule: Rule,
    choice: Choice,
    *,
    xla: bool,
    records: int | None = None,
) -> tuple[tf.Tensor, list[CouplingTrace]]:
    """(poses_BJQ, what each iteration's couplings did), with s = sum_i c_ij u_hat(j|i) and c = softmax(u_hat . V),
    or softmax(u_hat / |u_hat| . V) by cosine.

    Equal to stored votes but for rounding, in outputs and in gradients of first order, of ``weights`` too.
    """
    steps: list[CouplingTrace] = []
    count = len(transform.parts_TPJQ)

    def run(poses_BIP: tf.Tensor, *sources: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
        blocks = blocks_of(poses_BIP, Transform(sources[:count]), choice, rule, xla)
        forward = _Forward(blocks, sources[count:], say, rule, xla, records)
        steps.extend(forward.steps)

        def gradient(pose_gradient_BJQ: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _gradient(forward, pose_gradient_BJQ, choice.keep)

        return forward.pose_BJQ, gradient

    return tf.custom_gradient(run)(poses_BIP, *transform.parts_TPJQ, *weights), steps


def streamed_sum(
    poses_BIP: tf.Tensor, transform: Transform, weights_IBJ: tf.Tensor, choice: Choice, *, xla: bool
) -> tf.Tensor:
    """sum_i w_ij u_hat(j|i), [B, J, Q] in the dtype of the weights, which are in the order of the children."""
    shape = [tf.shape(weights_IBJ)[1], transform.parents, transform.pose]

    def run(
        poses_BIP: tf.Tensor, weights_IBJ: tf.Tensor, *parts: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
        blocks = blocks_of(poses_BIP, Transform(parts), choice, Rule(1, leaky=False), xla)
        sum_BJQ = tf.zeros(shape, weights_IBJ.dtype)
        done = [sum_BJQ]
        for k in in_turn(len(blocks), done):
            sum_BJQ = blocks.add_sum(k, blocks.cut(k, weights_IBJ), sum_BJQ)
            done.append(sum_BJQ)

        def gradient(ds_BJQ: tf.Tensor) -> tuple[tf.Tensor, ...]:
            sums = Sums(0.0, None, [Pass(ds_BJQ, ds_BJQ)], through_logits=False)  # V plays no part
            found, of_weights, done = [], [], [ds_BJQ]
            for k in in_turn(len(blocks), done):
                found.append(blocks.gradients(k, sums, [(blocks.cut(k, weights_IBJ), None)]))
                of_weights.append(blocks.agreement(k, ds_BJQ))
                done.append(tf.group(*found[-1], of_weights[-1]))
            of_poses, of_parts = blocks.joined(found)
            return (of_poses, blocks.in_child_order(of_weights), *of_parts)

        return sum_BJQ, gradient

    return tf.custom_gradient(run)(poses_BIP, weights_IBJ, *transform.parts_TPJQ)


def blocks_of(poses_BIP: tf.Tensor, transform: Transform, choice: Choice, rule: Rule, xla: bool) -> Blocks:
    """The children in blocks as they were chosen."""
    shared = SharedVotes if rule.cosine else SharedBlocks
    kind = FullBlocks if poses_BIP.shape[1] == transform.transforms else shared
    return kind(poses_BIP, transform, (choice.transforms, choice.positions), rule, xla)


class _Forward:
    """All iterations, and what their gradient needs. Iterations count from 0; the first has no pass over blocks."""

    def __init__(
        self, blocks: Blocks, weights: Sequence[tf.Tensor], say: Say, rule: Rule, xla: bool, records: int | None
    ) -> None:
        self.blocks, self.weights, self.say, self.rule, self.xla = blocks, tuple(weights), say, rule, xla
        self.share = 1.0 / (blocks.parents + rule.leaky)  # b_ij = 0: every outcome has the same
        self.preactivations = [self.share * blocks.first()]
        self.said: list[tf.Tensor] = []  # V of iterations 1, 2, ...
        self.couplings: list[list[tf.Tensor]] = []  # of iterations 1, 2, ..., by block
        self.steps: list[CouplingTrace] = []
        self.pose_BJQ, said_BJQ = call(say, xla, self.preactivations[0], self.weights, rule)
        if records is not None:
            coupling_1BJ = self.share * tf.ones_like(self.pose_BJQ[tf.newaxis, :, :, 0])
            step = observe(coupling_1BJ, rule.leaky, records)
            self.steps.append(step._replace(coupling_INJ=tf.repeat(step.coupling_INJ, blocks.children, axis=0)))
        for _ in range(rule.iterations - 1):
            self.said.append(self.said[-1] + said_BJQ if self.said and rule.cumulative else said_BJQ)
            self._pass(records)
            self.pose_BJQ, said_BJQ = call(say, xla, self.preactivations[-1], self.weights, rule)

    def _pass(self, records: int | None) -> None:
        said_BJQ = self.said[-1]
        sum_BJQ, made, done = tf.zeros_like(said_BJQ), [], [said_BJQ]
        for k in in_turn(len(self.blocks), done):
            sum_BJQ, coupling = self.blocks.forward(k, said_BJQ, sum_BJQ)
            made.append(coupling)
            done.append(sum_BJQ)
        self.preactivations.append(sum_BJQ)
        self.couplings.append(made)
        if records is not None:
            present_IW = children_on_grid(self.rule.fan, self.blocks.children)
            present = [None if present_IW is None else self.blocks.cut(k, present_IW) for k in range(len(self.blocks))]
            seen = [observe_present(made[k], self.rule.leaky, records, present[k]) for k in range(len(self.blocks))]
            coupling_INJ = self.blocks.in_child_order([step.coupling_INJ for step in seen])
            step = merged(seen, [self.blocks.size(k) if p is None else float(p.sum()) for k, p in enumerate(present)])
            self.steps.append(step._replace(coupling_INJ=coupling_INJ))


def _gradient(forward: _Forward, pose_gradient_BJQ: tf.Tensor, keep: Keep) -> tuple[tf.Tensor, ...]:
    """Of poses, the parts of the transform, and the parents' weights."""
    rule, blocks = forward.rule, forward.blocks
    last = rule.iterations - 1
    first = last if rule.stop_gradient else 0
    said_gradient_BJQ = tf.zeros_like(pose_gradient_BJQ)  # of what a parent says in the iteration that is looked at
    of_weights = [tf.zeros_like(weight) for weight in forward.weights]
    first_BJQ: tf.Tensor | None = None
    passes: list[Pass] = []
    made: list[list[Kept]] = []
    for iteration in range(last, first - 1, -1):
        pose_part = pose_gradient_BJQ if iteration == last else tf.zeros_like(pose_gradient_BJQ)
        ds_BJQ, found_weights = call(
            _parents_gradient,
            forward.xla,
            forward.say,
            forward.preactivations[iteration],
            forward.weights,
            pose_part,
            said_gradient_BJQ,
            rule,
        )
        of_weights = [sum_ + more for sum_, more in zip(of_weights, found_weights, strict=True)]
        if iteration == 0:
            first_BJQ = ds_BJQ
            break
        passes.append(Pass(forward.said[iteration - 1], ds_BJQ))
        if not rule.cumulative:
            said_gradient_BJQ = tf.zeros_like(said_gradient_BJQ)
        couplings: list[tf.Tensor | None] = list(forward.couplings[iteration - 1])
        if keep == "nothing":
            couplings = [None] * len(blocks)
        logits: list[tf.Tensor | None] = []
        if rule.stop_gradient:
            made.append([(coupling, None) for coupling in couplings])
            break
        done = [ds_BJQ]
        for k in in_turn(len(blocks), done):
            said_gradient_BJQ, logits_gradient = blocks.backward(k, passes[-1], couplings[k], said_gradient_BJQ)
            logits.append(logits_gradient if keep == "all" else None)
            done.append(said_gradient_BJQ)
        made.append(list(zip(couplings, logits, strict=True)))
    sums = Sums(forward.share, first_BJQ, passes, not rule.stop_gradient)
    found, done = [], [ds_BJQ]
    for k in in_turn(len(blocks), done):
        found.append(blocks.gradients(k, sums, [pairs[k] for pairs in made]))
        done.append(tf.group(*found[-1]))  # both of them: each holds the votes' gradient until it is made
    of_poses, of_parts = blocks.joined(found)
    return (of_poses, *of_parts, *of_weights)


def _parents_gradient(
    say: Say,
    preactivation_BJQ: tf.Tensor,
    weights: Sequence[tf.Tensor],
    pose_gradient_BJQ: tf.Tensor,
    said_gradient_BJQ: tf.Tensor,
    rule: Rule,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Gradients of a preactivation and of the parents' weights from those of pose and of what was said."""
    sources = [preactivation_BJQ, *weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        targets = say(preactivation_BJQ, weights, rule)
    ds_BJQ, *found = tape.gradient(targets, sources, [pose_gradient_BJQ, said_gradient_BJQ])
    return ds_BJQ, found


def in_turn(blocks: int, done: list[tf.Tensor | tf.Operation]) -> Iterator[int]:
    """Numbers of blocks, each to be started when all but ``AHEAD`` before it are done.

    TensorFlow would start them all at once, and hold all their votes.
    """
    for k in range(blocks):
        with tf.control_dependencies(done[:-AHEAD][-1:] or done[:1]):
            yield k
