"""The passes over a block of children that dynamic routing without stored votes is made of.

Each pass makes the votes of its children again from their poses and transforms. With V the sum of the parents' poses
so far and s the preactivation, a pass is one of

    forward     c = softmax(u_hat . V);  s += sum_i c u_hat
    backward    dc = u_hat . ds;  db = c (dc - sum_j c dc);  dV += sum_i db u_hat
    gradients   du_hat = sum over passes of (c ds + db V), and from it those of poses and transform

``FullBlocks`` makes the votes as one batched matrix product; ``SharedBlocks``, for transforms that positions share,
never makes votes at all: u_hat . V = u . (W V), and sum_i c u_hat = (sum_i c u) W.

Axes: B batch, I children, N positions, T transforms, I = N x T with T fastest, n/t children or transforms of a block,
J parents, P/Q child/parent pose size, X = J x Q.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from trainer.model.routing import Transform
from trainer.model.routing.agreement import couplings, logits_gradient
from trainer.model.squash import at_least_float32

UNROLLED = 48
"""Children whose weighted sum is written out as additions: XLA on a CPU makes vector code of these, six times as fast
as of its reduction over the first axis. With more of them their cache lines collide, and a matrix product is faster."""

Tensors = Sequence[tf.Tensor]
Kept = tuple[tf.Tensor | None, tf.Tensor | None]
"""Couplings of a block, and the gradient of their logits; None where they are to be made again."""


class Pass(NamedTuple):
    """One routing iteration after the first, as its gradient needs it."""

    said_BJQ: tf.Tensor  # V
    preactivation_gradient_BJQ: tf.Tensor  # ds


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

    def gradients(
        self,
        k: int,
        share: float,
        first_BJQ: tf.Tensor | None,
        passes: Sequence[Pass],
        kept: Sequence[Kept],
        through_logits: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Of this block's poses and transforms. ``first_BJQ``: ds of the first iteration, whose coupling is ``share``;
        ``kept``: c and db of each pass; ``through_logits``: False leaves out db V."""
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


class FullBlocks:
    """A transform for each child. Block k: children ``cuts[k]`` of part ``parts[k]``."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, block: tuple[int, int], leaky: bool, xla: bool):
        self.parents, self.pose, self.leaky, self.xla = transform.parents, transform.pose, leaky, xla
        self.children, self.dtype = poses_BIP.shape[1], poses_BIP.dtype
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

    def _inputs(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        part, start, stop, child = self.cuts[k]
        return self.poses_IBP[child : child + stop - start], self.matrices_TPX[part][start:stop]

    def _votes(self, k: int) -> tf.Tensor:
        """Sabour et al. 2017, section 2: u_hat(j|i) = W_ij u_i, [n, B, J, Q]."""
        votes_nBX = tf.matmul(*self._inputs(k))
        return tf.reshape(votes_nBX, [votes_nBX.shape[0], -1, self.parents, self.pose])

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

    def forward(self, k: int, said_BJQ: tf.Tensor, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_full_forward, self.xla, self._votes(k), said_BJQ, sum_BJQ, self.leaky)

    def backward(self, k: int, of: Pass, coupling: tf.Tensor | None, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_full_backward, self.xla, self._votes(k), of, coupling, sum_BJQ, self.leaky)

    def gradients(
        self,
        k: int,
        share: float,
        first_BJQ: tf.Tensor | None,
        passes: Sequence[Pass],
        kept: Sequence[Kept],
        through_logits: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        whole = all(c is not None and (db is not None or not through_logits) for c, db in kept)
        votes_nBJQ = None if whole else self._votes(k)
        made = call(
            _full_vote_gradient, self.xla, votes_nBJQ, share, first_BJQ, passes, kept, through_logits, self.leaky
        )
        poses_nBP, matrices_nPX = self._inputs(k)
        # of the first pass alone it is the same for all children, n = 1
        made_nBX = tf.cast(tf.reshape(made, [made.shape[0], -1, self.parents * self.pose]), self.dtype)
        return (
            tf.matmul(made_nBX, matrices_nPX, transpose_b=True),
            tf.matmul(poses_nBP, made_nBX, transpose_a=True),
        )

    def cut(self, k: int, per_child_IBJ: tf.Tensor) -> tf.Tensor:
        child = self.cuts[k][3]
        return per_child_IBJ[child : child + self.size(k)]

    def add_sum(self, k: int, weights: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_full_sum, self.xla, self._votes(k), weights, sum_BJQ)

    def agreement(self, k: int, vector_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_full_agreement, self.xla, self._votes(k), vector_BJQ)

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


def _full_sum(votes_nBJQ, weights_nBJ, sum_BJQ):  # type: ignore[no-untyped-def]
    return weighted_sum(weights_nBJ, at_least_float32(votes_nBJQ), sum_BJQ)


def _full_agreement(votes_nBJQ, vector_BJQ):  # type: ignore[no-untyped-def]
    return tf.reduce_sum(at_least_float32(votes_nBJQ) * vector_BJQ, axis=-1)


def _full_forward(votes_nBJQ, said_BJQ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    votes_nBJQ = at_least_float32(votes_nBJQ)
    coupling_nBJ = couplings(tf.reduce_sum(votes_nBJQ * said_BJQ, axis=-1), leaky)
    return weighted_sum(coupling_nBJ, votes_nBJQ, sum_BJQ), coupling_nBJ  # equation 2


def _full_backward(votes_nBJQ, of, coupling_nBJ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    votes_nBJQ = at_least_float32(votes_nBJQ)
    _, logits_gradient_nBJ = _full_pair(votes_nBJQ, of, (coupling_nBJ, None), True, leaky)
    return weighted_sum(logits_gradient_nBJ, votes_nBJQ, sum_BJQ), logits_gradient_nBJ


def _full_pair(votes_nBJQ, of, kept, through_logits, leaky):  # type: ignore[no-untyped-def]
    coupling_nBJ, logits_gradient_nBJ = kept
    if coupling_nBJ is None:
        coupling_nBJ = couplings(tf.reduce_sum(votes_nBJQ * of.said_BJQ, axis=-1), leaky)
    if logits_gradient_nBJ is None and through_logits:
        coupling_gradient_nBJ = tf.reduce_sum(votes_nBJQ * of.preactivation_gradient_BJQ, axis=-1)
        logits_gradient_nBJ = logits_gradient(coupling_nBJ, coupling_gradient_nBJ)
    return coupling_nBJ, logits_gradient_nBJ


def _full_vote_gradient(votes_nBJQ, share, first_BJQ, passes, kept, through_logits, leaky):  # type: ignore[no-untyped-def]
    if votes_nBJQ is not None:
        votes_nBJQ = at_least_float32(votes_nBJQ)
    total = None if first_BJQ is None else share * first_BJQ[tf.newaxis]
    for of, mine in zip(passes, kept, strict=True):
        coupling_nBJ, logits_gradient_nBJ = _full_pair(votes_nBJQ, of, mine, through_logits, leaky)
        term = coupling_nBJ[..., tf.newaxis] * of.preactivation_gradient_BJQ
        total = term if total is None else total + term
        if logits_gradient_nBJ is not None:
            total += logits_gradient_nBJ[..., tf.newaxis] * of.said_BJQ
    return total


class SharedBlocks:
    """Transforms that N positions share. Block k: positions and transforms ``cuts[k]``."""

    def __init__(self, poses_BIP: tf.Tensor, transform: Transform, block: tuple[int, int], leaky: bool, xla: bool):
        self.leaky, self.xla = leaky, xla
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
        return call(_shared_forward, self.xla, *self._inputs(k), said_BJQ, sum_BJQ, self.leaky)

    def backward(self, k: int, of: Pass, coupling: tf.Tensor | None, sum_BJQ: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return call(_shared_backward, self.xla, *self._inputs(k), of, coupling, sum_BJQ, self.leaky)

    def gradients(
        self,
        k: int,
        share: float,
        first_BJQ: tf.Tensor | None,
        passes: Sequence[Pass],
        kept: Sequence[Kept],
        through_logits: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        poses, matrices = call(
            _shared_gradients, self.xla, *self._inputs(k), share, first_BJQ, passes, kept, through_logits, self.leaky
        )
        dtype = self.poses_TBNP.dtype
        return tf.cast(poses, dtype), tf.cast(matrices, dtype)

    def cut(self, k: int, per_child_IBJ: tf.Tensor) -> tf.Tensor:
        _, start, stop, number, position, until = self.cuts[k]
        per_child_NTBJ = tf.reshape(per_child_IBJ, [self.positions, self.transforms, -1, self.parents])
        per_child_ntBJ = per_child_NTBJ[position:until, number : number + stop - start]
        return tf.transpose(per_child_ntBJ, [1, 2, 0, 3])

    def add_sum(self, k: int, weights: tf.Tensor, sum_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_shared_sum, self.xla, *self._inputs(k), weights, sum_BJQ)

    def agreement(self, k: int, vector_BJQ: tf.Tensor) -> tf.Tensor:
        return call(_shared_agreement, self.xla, *self._inputs(k), vector_BJQ)

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


def _shared_sum(poses_tBnP, matrices_tPJQ, weights_tBnJ, sum_BJQ):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, weights_tBnJ)


def _shared_agreement(poses_tBnP, matrices_tPJQ, vector_BJQ):  # type: ignore[no-untyped-def]
    return _agreement(at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ), vector_BJQ)[0]


def _shared_forward(poses_tBnP, matrices_tPJQ, said_BJQ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    coupling_tBnJ = couplings(_agreement(poses_tBnP, matrices_tPJQ, said_BJQ)[0], leaky)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, coupling_tBnJ), coupling_tBnJ


def _shared_backward(poses_tBnP, matrices_tPJQ, of, coupling_tBnJ, sum_BJQ, leaky):  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    if coupling_tBnJ is None:
        coupling_tBnJ = couplings(_agreement(poses_tBnP, matrices_tPJQ, of.said_BJQ)[0], leaky)
    coupling_gradient = _agreement(poses_tBnP, matrices_tPJQ, of.preactivation_gradient_BJQ)[0]
    gradient_tBnJ = logits_gradient(coupling_tBnJ, coupling_gradient)
    return sum_BJQ + _sum_of_votes(poses_tBnP, matrices_tPJQ, gradient_tBnJ), gradient_tBnJ


def _shared_gradients(  # type: ignore[no-untyped-def]
    poses_tBnP, matrices_tPJQ, share, first_BJQ, passes, kept, through_logits, leaky
):
    poses_tBnP, matrices_tPJQ = at_least_float32(poses_tBnP), at_least_float32(matrices_tPJQ)
    poses_gradient = matrices_gradient = 0.0

    def add(weights_tBnJ, vector_BJQ, carried_tBPJ):  # type: ignore[no-untyped-def]
        nonlocal poses_gradient, matrices_gradient
        poses_gradient += tf.matmul(weights_tBnJ, carried_tBPJ, transpose_b=True)
        weighted_tBPJ = tf.matmul(poses_tBnP, weights_tBnJ, transpose_a=True)
        matrices_gradient += tf.einsum("tbpj,bjq->tpjq", weighted_tBPJ, vector_BJQ)

    if first_BJQ is not None:
        poses_gradient += share * tf.einsum("tpjq,bjq->tbp", matrices_tPJQ, first_BJQ)[:, :, tf.newaxis]
        poses_gradient += tf.zeros_like(poses_tBnP)
        matrices_gradient += share * tf.einsum("tbp,bjq->tpjq", tf.reduce_sum(poses_tBnP, axis=2), first_BJQ)
    for of, (coupling_tBnJ, logits_tBnJ) in zip(passes, kept, strict=True):
        agreement, said_carried = _agreement(poses_tBnP, matrices_tPJQ, of.said_BJQ)
        coupling_gradient, gradient_carried = _agreement(poses_tBnP, matrices_tPJQ, of.preactivation_gradient_BJQ)
        if coupling_tBnJ is None:
            coupling_tBnJ = couplings(agreement, leaky)
        if logits_tBnJ is None and through_logits:
            logits_tBnJ = logits_gradient(coupling_tBnJ, coupling_gradient)
        add(coupling_tBnJ, of.preactivation_gradient_BJQ, gradient_carried)
        if logits_tBnJ is not None:
            add(logits_tBnJ, of.said_BJQ, said_carried)
    return poses_gradient, matrices_gradient
