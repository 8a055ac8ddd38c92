"""Competition between parents for a child that several of them can reach.

In a convolutional layer a parent sees a window of K x K positions, and windows overlap. A child's couplings sum to 1
over all parents that see it, of all types and in all windows (Hinton, Sabour, Frosst 2018, section 4), not over the
types of one window, which Gritzman 2019 found to be a common mistake.

Axes: B batch, H W positions of the child grid, H' W' windows, K kernel offsets, T child types,
I = K x K x T children of a window (types fastest), J parents of a window, BW = B x H' x W' (windows fastest).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

NOTHING = -1e30  # a logit that takes no part: exp of it is 0 beside any other


class Fan(NamedTuple):
    """Windows over a square grid of positions; ``before`` and ``after`` rows and columns of nothing lie around it."""

    side: int  # H = W of the child grid
    kernel: int
    stride: int
    before: int = 0
    after: int = 0

    @staticmethod
    def create(side: int, kernel: int, stride: int, padding: str) -> Fan:
        """``padding`` as of convolutions: valid, or same, by which windows = ceil(side / stride)."""
        if padding == "valid":
            return Fan(side, kernel, stride)
        missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        return Fan(side, kernel, stride, missing // 2, missing - missing // 2)

    @property
    def padded(self) -> int:
        return self.before + self.side + self.after

    @property
    def windows(self) -> int:
        """H' = W'."""
        return (self.padded - self.kernel) // self.stride + 1

    @property
    def windows_per_child(self) -> float:
        """Windows times their size over the positions that are in any: how often a child is seen if all are full."""
        seen = sum(count > 0 for count in _windows_of_a_row(self))
        return (self.windows * self.kernel / seen) ** 2

    @property
    def overlaps(self) -> bool:
        """Whether a child can be in several windows."""
        return self.kernel > self.stride and self.windows > 1


def _windows_of_a_row(fan: Fan) -> list[int]:
    starts = [window * fan.stride - fan.before for window in range(fan.windows)]
    return [sum(start <= position < start + fan.kernel for start in starts) for position in range(fan.side)]


def log_softmax_over_parents(logits_IBJ: tf.Tensor, fan: Fan | None, leaky: bool = False) -> tf.Tensor:
    """Logarithms of couplings that sum to 1 over all parents that a child can reach.

    Args:
        logits_IBJ: at least float32; with a fan the batch is BW.
        fan: None: each child is in one window, and its parents are the J of that window.
        leaky: a further parent with logit 0 for each child, 'none of the above', takes its share and is left out.
    """
    normaliser_IB = tf.reduce_logsumexp(logits_IBJ, axis=-1)
    if fan is not None and fan.overlaps:
        normaliser_IB = _over_windows(normaliser_IB, fan, tf.reduce_logsumexp, NOTHING)
    if leaky:  # ln(e^n + e^0)
        normaliser_IB = tf.nn.softplus(normaliser_IB)
    return logits_IBJ - normaliser_IB[..., tf.newaxis]


def sum_over_windows(values_IB: tf.Tensor, fan: Fan) -> tf.Tensor:
    """Sums over all windows that a child is in, one value a child: [I, BW] -> [B, H x W x T]."""
    grid_TBHW = _by_child(values_IB, fan, tf.reduce_sum, 0.0)
    inside = slice(fan.before, fan.before + fan.side)
    grid_BHWT = tf.transpose(grid_TBHW[:, :, inside, inside], [1, 2, 3, 0])
    return tf.reshape(grid_BHWT, [-1, fan.side * fan.side * grid_BHWT.shape[-1]])


def windows_of_each_child(fan: Fan) -> list[int]:
    """How many windows each position is in, row by row; 0 where the stride leaves a border over."""
    row = _windows_of_a_row(fan)
    return [above * beside for above in row for beside in row]


def children_on_grid(fan: Fan | None, children: int) -> np.ndarray | None:
    """1 where a child of a window lies on the grid and 0 beside it, [I, H' x W']; None where all do."""
    if fan is None or not fan.before + fan.after:
        return None
    position_KW = np.arange(fan.kernel)[:, np.newaxis] + np.arange(fan.windows) * fan.stride - fan.before
    row_KW = (position_KW >= 0) & (position_KW < fan.side)
    grid_KKWW = row_KW[:, np.newaxis, :, np.newaxis] & row_KW[np.newaxis, :, np.newaxis, :]
    grid = grid_KKWW.reshape(fan.kernel**2, fan.windows**2).astype(np.float32)
    return np.repeat(grid, children // fan.kernel**2, axis=0)


def cut_windows(grid_BHWX: tf.Tensor, fan: Fan) -> tf.Tensor:
    """The positions that each window sees: [B, H, W, X] -> [BW, K x K, X], with zeros around the grid."""
    padding = [fan.before, fan.after]
    return _cut(tf.pad(grid_BHWX, [[0, 0], padding, padding, [0, 0]]), fan)


def _cut(grid_BHWX: tf.Tensor, fan: Fan) -> tf.Tensor:
    reach = (fan.windows - 1) * fan.stride + 1
    cut = [
        grid_BHWX[:, row : row + reach : fan.stride, column : column + reach : fan.stride]
        for row in range(fan.kernel)
        for column in range(fan.kernel)
    ]
    return tf.reshape(tf.stack(cut, axis=3), [-1, fan.kernel**2, grid_BHWX.shape[-1]])


Reduction = Callable[..., tf.Tensor]


def _over_windows(values_IB: tf.Tensor, fan: Fan, reduce: Reduction, neutral: float) -> tf.Tensor:
    """Reduces over all windows that a child is in, and gives the result to the child in each: [I, BW] -> [I, BW]."""
    grid_TBHW = _by_child(values_IB, fan, reduce, neutral)
    windows_BKT = _cut(tf.transpose(grid_TBHW, [1, 2, 3, 0]), fan)
    return tf.reshape(tf.transpose(windows_BKT, [1, 2, 0]), [values_IB.shape[0], -1])


def _by_child(values_IB: tf.Tensor, fan: Fan, reduce: Reduction, neutral: float) -> tf.Tensor:
    """[I, BW] -> [T, B, H, W] on the padded grid; ``neutral`` where no window is."""
    types = values_IB.shape[0] // fan.kernel**2
    by_offset_KTBHW = tf.reshape(values_IB, [fan.kernel**2, types, -1, fan.windows, fan.windows])
    offsets = [(row, column) for row in range(fan.kernel) for column in range(fan.kernel)]
    placed = [_place(by_offset_KTBHW[k], row, column, fan, neutral) for k, (row, column) in enumerate(offsets)]
    return reduce(tf.stack(placed, axis=-1), axis=-1)


def _place(windows_TBHW: tf.Tensor, row: int, column: int, fan: Fan, neutral: float) -> tf.Tensor:
    """Window (h, w) to position (h x stride + row, w x stride + column), by paddings: their gradients are slices."""
    types, apart, canvas = windows_TBHW.shape[0], fan.stride, fan.windows * fan.stride
    spread = tf.pad(
        windows_TBHW[:, :, :, tf.newaxis, :, tf.newaxis],
        [[0, 0], [0, 0], [0, 0], [0, apart - 1], [0, 0], [0, apart - 1]],
        constant_values=neutral,
    )
    spread_TBHW = tf.reshape(spread, [types, -1, canvas, canvas])
    room = max(fan.padded - canvas, 0)
    moved_TBHW = tf.pad(spread_TBHW, [[0, 0], [0, 0], [row, room], [column, room]], constant_values=neutral)
    return moved_TBHW[:, :, : fan.padded, : fan.padded]
