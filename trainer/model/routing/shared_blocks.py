"""Blocks of children whose transforms are shared by all positions: votes are never made.

u_hat . V = u . (W V), and sum_i c u_hat = (sum_i c u) W.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, n/t children or transforms of a block,
J parents, P/Q child/parent pose size, X = J x Q.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import Rule, couplings, logits_gradient
from trainer.model.routing.blocks import Kept, Pass, Sums, Tensors, call
from trainer.model.squash import at_least_float32


class SharedBlocks:
    """Transforms that N positions share. Block k: positions and transforms ``cuts[k]``."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, block: tuple[int, int], rule: Rule, xla: bool):
        self.leaky, self.xla = rule.leaky, xla
        self.parts_TPJQ, self.parents, self.transforms = transform.parts_TPJQ, transform.parents, transform.transforms
        self.children, pose_in = poses_BIP.shape[1:]
        self.positions = self.children // self.transforms
        poses_BNTP = tf.reshape(poses_BIP, [-1, self.positions, self.transforms, pose_in])
        self.poses_TBNP = tf.transpose(poses_BNTP, [2, 0, 1, 3])
        self.cuts: list[tuple[int, int, int, int, int, int]] = []  # part, from, to in it, transform, position from, to
        transform_number = 0
        for number, part in enumerate(self.parts_TPJQ):
            for start in range(0, part.shape[0], block[0]):
                stop = min(start + block[0], part.shape[0])
                for position in range(0, self.positions, block[1]):
                    until = min(position + block[1], self.positions)
                    self.cuts.append((number, start, stop, transform_number, position, until))
                transform_number += stop - start

    def __len__(self) -> int:
        return len(self.cuts)

    def size(self, k: int) -> int:
        _, start, stop, _, position, until = self.cuts[k]
        return (stop - start) * (until - position)

    def _inputs(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        part, start, stop, number, position, until = self.cuts[k]
        poses_tBnP = self.poses_TBNP[number : number + stop - start, :, position:until]
        return poses_tBnP, self.parts_TPJQ[part][start:stop]

    def first(self) -> tf.Tensor:
        poses_TBP = tf.reduce_sum(self.poses_TBNP, axis=2)
        sum_BJQ, number = None, 0
        for part_TPJQ in self.parts_TPJQ:
            count, pose_in, parents, pose = part_TPJQ.shape
            poses_BY = tf.reshape(tf.transpose(poses_TBP[number : number + count], [1, 0, 2]), [-1, count * pose_in])
            product_BX = tf.matmul(poses_BY, tf.reshape(part_TPJQ, [count * pose_in, parents * pose]))
            product_BJQ = tf.reshape(at_least_float32(product_BX), [-1, parents, pose])
            sum_BJQ = product_BJQ if sum_BJQ is None else sum_BJQ + product_BJQ
            number += count
        return sum_BJQ

    def forward(self, k: int, said_BJQ: tf.Tensor, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_forward, self.xla, *self._inputs(k), said_BJQ, sum_BJQ, self.leaky)

    def backward(self, k: int, of: Pass, coupling: tf.Tensor | None, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_backward, self.xla, *self._inputs(k), of, coupling, sum_BJQ, self.leaky)

    def gradients(self, k: int, of: Sums, kept: Sequence[Kept]) -> tuple[tf.Tensor, tf.Tensor]:
        poses, matrices = call(_gradients, self.xla, *self._inputs(k), of, kept, self.leaky)
        dtype = self.poses_TBNP.dtype
        return tf.cast(poses, dtype), tf.cast(matrices, dtype)

    def cut(self, k: int, per_child_IBJ: tf.Tensor) -> tf.Tensor:
        _, start, stop, number, position, until = self.cuts[k]
        per_child_NTBJ = tf.reshape(per_child_IBJ, [self.positions, self.transforms, -1, self.parents])
        per_child_ntBJ = per_child_NTBJ[position:until, number : number + stop - start]
        return tf.transpose(per_child_ntBJ, [1, 2, 0, 3])

    def add_sum(self, k: int, weights: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_sum, self.xla, *self._inputs(k), weights, sum_BJQ)

    def agreement(self, k: int, vector_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_agreement_alone, self.xla, *self._inputs(k), vector_BJQ)

    def joined(self, found: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        rows: dict[int, list[tf.Tensor]] = {}
        sums: dict[tuple[int, int], tf.Tensor] = {}
        for (poses_tBnP, matrices_tPJQ), cut in zip(found, self.cuts, strict=True):
            rows.setdefault(cut[3], []).append(poses_tBnP)
            place = (cut[0], cut[1])
            sums[place] = sums[place] + matrices_tPJQ if place in sums else matrices_tPJQ
        poses_TBNP = tf.concat([tf.concat(blocks, axis=2) for blocks in rows.values()], axis=0)
        poses_BNTP = tf.transpose(poses_TBNP, [1, 2, 0, 3])
        poses_BIP = tf.reshape(poses_BNTP, [-1, self.children, poses_BNTP.shape[-1]])
        parts = []
        for number in range(len(self.parts_TPJQ)):
            mine = [matrices for (part, _), matrices in sums.items() if part == number]
            parts.append(mine[0] if len(mine) == 1 else tf.concat(mine, axis=0))
        return poses_BIP, parts

    def in_child_order(self, couplings_tBnJ: Tensors) -> tf.Tensor:
        rows: dict[int, list[tf.Tensor]] = {}
        for coupling_tBnJ, cut in zip(couplings_tBnJ, self.cuts, strict=True):
            rows.setdefault(cut[3], []).append(coupling_tBnJ)
        coupling_TBNJ = tf.concat([tf.concat(blocks, axis=2) for blocks in rows.values()], axis=0)
        coupling_NTBJ = tf.transpose(coupling_TBNJ, [2, 0, 1, 3])
        return tf.reshape(coupling_NTBJ, [self.children, tf.shape(coupling_NTBJ)[2], self.parents])


def _agreement(poses_tBnP, matrices_tPJQ, vector_BJQ):  # type: ignore[no-untyped-def]
    """u_hat . vector = u . (W vector): ([t, B, n, J], W vector [t, B, P, J])."""
    carried_tBPJ = tf.einsum("tpjq,bjq->tbpj", matrices_tPJQ, vector_BJQ)
    return tf.matmul(poses_tBnP, carried_tBPJ), carried_tBPJ


def _sum_of_votes(poses_tBnP, matrices_tPJQ, weights_tBnJ):  # type: ignore[no-untyped-def]
    """sum_i weight u_hat = (sum_i weight u) W, [B, J, Q]."""
    weighted_tBPJ = tf.matmul(poses_tBnP, weights_tBnJ, transpose_a=True)
    return tf.einsum("tbpj,tpjq->bjq", weighted_tBPJ, matrices_tPJQ)


def _sum(poses_tBnP, matrices_tPJQ, weights_tBnJ, sum_BJQ):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, weights_tBnJ)


def _agreement_alone(poses_tBnP, matrices_tPJQ, vector_BJQ):  # type: ignore[no-untyped-def]
    return _agreement(at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ), vector_BJQ)[0]


def _forward(poses_tBnP, matrices_tPJQ, said_BJQ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    coupling_tBnJ = couplings(_agreement(poses_tBnP, matrices_tPJQ, said_BJQ)[0], leaky)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, coupling_tBnJ), coupling_tBnJ


def _backward(poses_tBnP, matrices_tPJQ, of, coupling_tBnJ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    if coupling_tBnJ is None:
        coupling_tBnJ = couplings(_agreement(poses_tBnP, matrices_tPJQ, of.said_BJQ)[0], leaky)
    coupling_gradient = _agreement(poses_tBnP, matrices_tPJQ, of.preactivation_gradient_BJQ)[0]
    gradient_tBnJ = logits_gradient(coupling_tBnJ, coupling_gradient)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, gradient_tBnJ), gradient_tBnJ


def _gradients(poses_tBnP, matrices_tPJQ, sums, kept, leaky):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    poses_gradient = matrices_gradient = 0.0

    def add(weights_tBnJ, vector_BJQ, carried_tBPJ):  # type: ignore[no-untyped-def]
        nonlocal poses_gradient, matrices_gradient
        poses_gradient += tf.matmul(weights_tBnJ, carried_tBPJ, transpose_b=True)
        weighted_tBPJ = tf.matmul(poses_tBnP, weights_tBnJ, transpose_a=True)
        matrices_gradient += tf.einsum("tbpj,bjq->tpjq", weighted_tBPJ, vector_BJQ)

    if sums.first_gradient_BJQ is not None:
        first_BJQ = sums.share * sums.first_gradient_BJQ
        poses_gradient += tf.einsum("tpjq,bjq->tbp", matrices_tPJQ, first_BJQ)[:, :, tf.newaxis]
        poses_gradient += tf.zeros_like(poses_tBnP)
        matrices_gradient += tf.einsum("tbp,bjq->tpjq", tf.reduce_sum(poses_tBnP, axis=2), first_BJQ)
    for of, (coupling_tBnJ, logits_tBnJ) in zip(sums.passes, kept, strict=True):
        agreement, said_carried = _agreement(poses_tBnP, matrices_tPJQ, of.said_BJQ)
        coupling_gradient, gradient_carried = _agreement(poses_tBnP, matrices_tPJQ, of.preactivation_gradient_BJQ)
        if coupling_tBnJ is None:
            coupling_tBnJ = couplings(agreement, leaky)
        if logits_tBnJ is None and sums.through_logits:
            logits_tBnJ = logits_gradient(coupling_tBnJ, coupling_gradient)
        add(coupling_tBnJ, of.preactivation_gradient_BJQ, gradient_carried)
        if logits_tBnJ is not None:
            add(logits_tBnJ, of.said_BJQ, said_carried)
    return poses_gradient, matrices_gradient
