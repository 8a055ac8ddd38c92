"""Blocks of children that share transforms and are compared by cosine: votes are made, for their lengths.

|u_hat|^2 = u^T (W W^T) u would do without them. It takes as many multiply-adds where P = Q, and rounding leaves nothing
of a vote that is much shorter than |u| |W|.

Axes: B batch, N positions, T transforms, n/t children or transforms of a block, J parents, P/Q child/parent pose size,
X = J x Q, Y = positions of a block x B.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule
from trainer.model.routing.blocks import Kept, Sums, Tensors
from trainer.model.routing.full_blocks import VoteBlocks
from trainer.model.routing.shared_blocks import SharedBlocks


class SharedVotes(VoteBlocks, SharedBlocks):
    """The blocks of ``SharedBlocks`` with the passes of ``VoteBlocks``; couplings are [t x n, B, J]."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, block: tuple[int, int], rule: Rule, xla: bool):
        VoteBlocks.__init__(self, poses_BIP, transform, rule, xla)
        SharedBlocks.__init__(self, poses_BIP, transform, block, rule, xla)

    def size(self, k: int) -> int:
        return SharedBlocks.size(self, k)

    def _factors(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        poses_tBnP, matrices_tPJQ = self._inputs(k)
        count, pose_in = matrices_tPJQ.shape[:2]
        poses_tYP = tf.reshape(tf.transpose(poses_tBnP, [0, 2, 1, 3]), [count, -1, pose_in])
        return poses_tYP, tf.reshape(matrices_tPJQ, [count, pose_in, -1])

    def gradients(self, k: int, of: Sums, kept: Sequence[Kept]) -> tuple[tf.Tensor, tf.Tensor]:
        poses_tYP, matrices_tPX = super().gradients(k, of, kept)
        return self._by_record(k, poses_tYP), tf.reshape(
            matrices_tPX, [*matrices_tPX.shape[:2], self.parents, self.pose]
        )

    def in_child_order(self, couplings_nBJ: Tensors) -> tf.Tensor:
        return super().in_child_order([self._by_record(k, coupling) for k, coupling in enumerate(couplings_nBJ)])

    def _by_record(self, k: int, of_children: tf.Tensor) -> tf.Tensor:
        """[t, B, n, ...] of [t x n, B, ...]."""
        _, start, stop, _, position, until = self.cuts[k]
        of_tnBZ = tf.reshape(of_children, [stop - start, until - position, -1, of_children.shape[-1]])
        return tf.transpose(of_tnBZ, [0, 2, 1, 3])
