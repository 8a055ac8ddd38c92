"""The passes over a block of children that routing without stored votes is made of.

Each pass makes the votes of its children again from their poses and transforms. With V what a parent's votes
are compared with and s the preactivation, a pass is one of

    forward     c = softmax(u_hat . V);  s += sum_i c u_hat
    backward    dc = u_hat . ds;  db = c (dc - sum_j c dc);  dV += sum_i db u_hat
    gradients   du_hat = sum over passes of (c ds + db V), and from it those of poses and transform

By cosine d = u_hat / |u_hat| takes the place of u_hat beside V and db; with g the sum over passes of db V, du_hat is
that of c ds, and (g - d (d . g)) / |u_hat|.

``full_blocks`` has them for a transform for each child, ``shared_blocks`` for transforms that positions share,
``shared_votes`` for these by cosine.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, n/t children or transforms of a block,
J parents, P/Q child/parent pose size, X = J x Q.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

Tensors = Sequence[tf.Tensor]
Kept = tuple[tf.Tensor | None, tf.Tensor | None]
"""Couplings of a block, and the gradient of their logits; None where they are to be made again."""


class Pass(NamedTuple):
    """One routing iteration after the first, as its gradient needs it."""

    said_BJQ: tf.Tensor  # V
    preactivation_gradient_BJQ: tf.Tensor  # ds


class Sums(NamedTuple):
    """All weighted sums that a vote is in: that of the first iteration, where all weights are the same, and passes."""

    share: float
    first_gradient_BJQ: tf.Tensor | None  # ds of the first; None where no gradient goes through it
    passes: Sequence[Pass]
    through_logits: bool  # False leaves out db V


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, autograph=False)


def call(function: Callable[..., Any], xla: bool, *arguments: Any) -> Any:
    """``function`` compiled by XLA or as it is."""
    return (_compiled(function) if xla else function)(*arguments)


class Blocks(Protocol):
    """Children in blocks. Couplings and their logits' gradients are [..., B, ..., J], made and taken back by block."""

    parents: int
    children: int

    def __len__(self) -> int: ...

    def size(self, k: int) -> int:
        """Children of block k."""
        ...

    def first(self) -> tf.Tensor:
        """Sum of all votes, [B, J, Q], in at least float32."""
        ...

    def forward(self, k: int, said_BJQ: tf.Tensor, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(s with this block's part added, its couplings)."""
        ...

    def backward(self, k: int, of: Pass, coupling: tf.Tensor | None, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(dV with this block's part added, db); a coupling that is None is made again."""
        ...

    def gradients(self, k: int, of: Sums, kept: Sequence[Kept]) -> tuple[tf.Tensor, tf.Tensor]:
        """Of this block's poses and transforms; ``kept``: c and db of each pass."""
        ...

    def cut(self, k: int, per_child_IBJ: tf.Tensor) -> tf.Tensor:
        """Block k of values in the order of the children, as couplings are."""
        ...

    def add_sum(self, k: int, weights: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
        """The sum with this block's votes added, each times its weight."""
        ...

    def agreement(self, k: int, vector_BJQ: tf.Tensor) -> tf.Tensor:
        """u_hat . vector of each vote."""
        ...

    def joined(self, found: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The gradients of all blocks as those of poses [B, I, P] and of each part of the transform."""
        ...

    def in_child_order(self, couplings: Tensors) -> tf.Tensor:
        """Couplings of all blocks, [I, B, J]."""
        ...
