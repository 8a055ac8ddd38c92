"""Blocks of children that have a transform each: votes are one batched matrix product.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, n/t children or transforms of a block,
J parents, P/Q child/parent pose size, X = J x Q.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Sequence

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule, couplings, direction_gradient, logits_gradient, wide
from trainer.model.routing.blocks import Kept, Pass, Sums, Tensors, call
from trainer.model.squash import at_least_float32

UNROLLED = 48
"""Children whose weighted sum is written out as additions: XLA on a CPU makes vector code of these, six times as fast
as of its reduction over the first axis. With more of them their cache lines collide, and a matrix product is faster."""


class VoteBlocks(abc.ABC):
    """The passes over votes that are made: a block's are [n, B, J, Q], its children in the order of ``votes.votes``."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, rule: Rule, xla: bool):
        self.parents, self.pose, self.leaky, self.cosine = transform.parents, transform.pose, rule.leaky, rule.cosine
        self.children, self.dtype, self.xla = poses_BIP.shape[1], poses_BIP.dtype, xla

    @abc.abstractmethod
    def size(self, k: int) -> int: ...

    @abc.abstractmethod
    def _factors(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Poses [t, n/t * B, P] and matrices [t, P, X]."""

    def _votes(self, k: int) -> tf.Tensor:
        """Sabour et al. 2017, section 2: u_hat(j|i) = W_ij u_i, [n, B, J, Q]."""
        return tf.reshape(tf.matmul(*self._factors(k)), [self.size(k), -1, self.parents, self.pose])

    def forward(self, k: int, said_BJQ: tf.Tensor, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_forward, self.xla, self._votes(k), said_BJQ, sum_BJQ, self.leaky, self.cosine)

    def backward(self, k: int, of: Pass, coupling: tf.Tensor | None, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_backward, self.xla, self._votes(k), of, coupling, sum_BJQ, self.leaky, self.cosine)

    def gradients(self, k: int, of: Sums, kept: Sequence[Kept]) -> tuple[tf.Tensor, tf.Tensor]:
        whole = all(c is not None and (not of.through_logits or (db is not None and not self.cosine)) for c, db in kept)
        votes_nBJQ = None if whole else self._votes(k)
        made = call(_vote_gradient, self.xla, votes_nBJQ, of, kept, self.leaky, self.cosine)
        poses_tYP, matrices_tPX = self._factors(k)
        positions = self.size(k) // matrices_tPX.shape[0]
        if made.shape[0] < positions:  # of the first pass alone it is the same for all children
            made = tf.repeat(made, positions, axis=0)
        width = self.parents * self.pose
        made_tYX = tf.cast(tf.reshape(made, [made.shape[0] // positions, -1, width]), self.dtype)
        return (
            tf.matmul(made_tYX, matrices_tPX, transpose_b=True),
            tf.matmul(poses_tYP, made_tYX, transpose_a=True),
        )


class FullBlocks(VoteBlocks):
    """A transform for each child. Block k: children ``cuts[k]`` of part ``parts[k]``."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, block: tuple[int, int], rule: Rule, xla: bool):
        super().__init__(poses_BIP, transform, rule, xla)
        self.poses_IBP = tf.transpose(poses_BIP, [1, 0, 2])
        self.matrices_TPX = [tf.reshape(w, [w.shape[0], w.shape[1], -1]) for w in transform.parts_TPJQ]
        self.cuts: list[tuple[int, int, int, int]] = []  # part, from, to in the part, child
        child = 0
        for number, part in enumerate(self.matrices_TPX):
            count = math.ceil(part.shape[0] / block[0])
            bounds = [part.shape[0] * k // count for k in range(count + 1)]  # nearly the same: fewer programs
            for start, stop in itertools.pairwise(bounds):
                self.cuts.append((number, start, stop, child))
                child += stop - start

    def __len__(self) -> int:
        return len(self.cuts)

    def size(self, k: int) -> int:
        _, start, stop, _ = self.cuts[k]
        return stop - start

    def _factors(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        part, start, stop, child = self.cuts[k]
        return self.poses_IBP[child : child + stop - start], self.matrices_TPX[part][start:stop]

    def first(self) -> tf.Tensor:
        sum_BX, child = None, 0
        for part_TPX in self.matrices_TPX:
            count, pose_in, width = part_TPX.shape
            poses_BY = tf.reshape(tf.transpose(self.poses_IBP[child : child + count], [1, 0, 2]), [-1, count * pose_in])
            with tf.control_dependencies([] if sum_BX is None else [sum_BX]):
                product_BX = at_least_float32(tf.matmul(poses_BY, tf.reshape(part_TPX, [count * pose_in, width])))
            sum_BX = product_BX if sum_BX is None else sum_BX + product_BX
            child += count
        return tf.reshape(sum_BX, [-1, self.parents, self.pose])

    def cut(self, k: int, per_child_IBJ: tf.Tensor) -> tf.Tensor:
        child = self.cuts[k][3]
        return per_child_IBJ[child : child + self.size(k)]

    def add_sum(self, k: int, weights: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_sum, self.xla, self._votes(k), weights, sum_BJQ)

    def agreement(self, k: int, vector_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_agreement, self.xla, self._votes(k), vector_BJQ)

    def joined(self, found: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        poses_IBP = tf.concat([poses for poses, _ in found], axis=0)
        parts = []
        for number, part in enumerate(self.matrices_TPX):
            mine = [made for (_, made), cut in zip(found, self.cuts, strict=True) if cut[0] == number]
            joined = mine[0] if len(mine) == 1 else tf.concat(mine, axis=0)
            parts.append(tf.reshape(joined, [*part.shape[:2], self.parents, self.pose]))
        return tf.transpose(poses_IBP, [1, 0, 2]), parts

    def in_child_order(self, couplings_nBJ: Tensors) -> tf.Tensor:
        return tf.concat(couplings_nBJ, axis=0)


def weighted_sum(weights_nBJ: tf.Tensor, votes_nBJQ: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
    """sum + sum_n weights votes."""
    children = votes_nBJQ.shape[0]
    if children > UNROLLED:
        return sum_BJQ + tf.einsum("nbj,nbjq->bjq", weights_nBJ, votes_nBJQ)
    for child in range(children):
        sum_BJQ += weights_nBJ[child][..., tf.newaxis] * votes_nBJQ[child]
    return sum_BJQ


def _sum(votes_nBJQ, weights_nBJ, sum_BJQ):  # type: ignore[no-untyped-def]
    return weighted_sum(weights_nBJ, at_least_float32(votes_nBJQ), sum_BJQ)


def _agreement(votes_nBJQ, vector_BJQ):  # type: ignore[no-untyped-def]
    return tf.reduce_sum(at_least_float32(votes_nBJQ) * vector_BJQ, axis=-1)


def _forward(votes_nBJQ, said_BJQ, sum_BJQ, leaky, cosine):  # type: ignore[no-untyped-def]
    votes_nBJQ, compared_nBJQ = wide(votes_nBJQ, cosine)
    coupling_nBJ = couplings(tf.reduce_sum(compared_nBJQ * said_BJQ, axis=-1), leaky)
    return weighted_sum(coupling_nBJ, votes_nBJQ, sum_BJQ), coupling_nBJ  # equation 2


def _backward(votes_nBJQ, of, coupling_nBJ, sum_BJQ, leaky, cosine):  # type: ignore[no-untyped-def]
    votes_nBJQ, compared_nBJQ = wide(votes_nBJQ, cosine)
    _, logits_gradient_nBJ = _pair(votes_nBJQ, compared_nBJQ, of, (coupling_nBJ, None), True, leaky)
    return weighted_sum(logits_gradient_nBJ, compared_nBJQ, sum_BJQ), logits_gradient_nBJ


def _pair(votes_nBJQ, compared_nBJQ, of, kept, through_logits, leaky):  # type: ignore[no-untyped-def]
    coupling_nBJ, logits_gradient_nBJ = kept
    if coupling_nBJ is None:
        coupling_nBJ = couplings(tf.reduce_sum(compared_nBJQ * of.said_BJQ, axis=-1), leaky)
    if logits_gradient_nBJ is None and through_logits:
        coupling_gradient_nBJ = tf.reduce_sum(votes_nBJQ * of.preactivation_gradient_BJQ, axis=-1)
        logits_gradient_nBJ = logits_gradient(coupling_nBJ, coupling_gradient_nBJ)
    return coupling_nBJ, logits_gradient_nBJ


def _vote_gradient(votes_nBJQ, sums, kept, leaky, cosine):  # type: ignore[no-untyped-def]
    compared_nBJQ = None
    if votes_nBJQ is not None:
        votes_nBJQ, compared_nBJQ = wide(votes_nBJQ, cosine)
    first_BJQ = sums.first_gradient_BJQ
    total = None if first_BJQ is None else sums.share * first_BJQ[tf.newaxis]
    of_compared = None
    for of, mine in zip(sums.passes, kept, strict=True):
        coupling_nBJ, logits_gradient_nBJ = _pair(votes_nBJQ, compared_nBJQ, of, mine, sums.through_logits, leaky)
        term = coupling_nBJ[..., tf.newaxis] * of.preactivation_gradient_BJQ
        total = term if total is None else total + term
        if logits_gradient_nBJ is not None:
            term = logits_gradient_nBJ[..., tf.newaxis] * of.said_BJQ
            of_compared = term if of_compared is None else of_compared + term
    if of_compared is None:
        return total
    return total + (direction_gradient(votes_nBJQ, of_compared) if cosine else of_compared)
