"""Windows of convolutional capsule layers by tables of what lies where, made by NumPy: see ``routing/fan.py``.

Axes: B batch, S positions of the padded child grid, W windows, K offsets in a window, M windows that a position is in,
T child types, I = K x T children of a window (types fastest), X numbers of a child.
"""

from __future__ import annotations

import numpy as np
from keras import KerasTensor, ops

from trainer.model.routing.fan import NOTHING, Fan


def positions(fan: Fan) -> np.ndarray:
    """Which position of the padded grid each offset of each window is [W, K]."""
    starts = np.arange(fan.windows) * fan.stride
    lines = starts[:, None] + np.arange(fan.kernel)  # of rows, and of columns
    grid = lines[:, None, :, None] * fan.padded + lines[None, :, None, :]
    return grid.reshape(fan.windows**2, fan.kernel**2).astype(np.int32)


def places(fan: Fan) -> np.ndarray:
    """In which (window, offset) each position is [S, M], as W x K numbers; W x K itself stands for nowhere."""
    flat = positions(fan).ravel()
    found = [np.flatnonzero(flat == position) for position in range(fan.padded**2)]
    table = np.full((len(found), max(map(len, found))), len(flat), np.int32)
    for row, each in zip(table, found, strict=True):
        row[: len(each)] = each
    return table


def cut(grid_BNX: KerasTensor, fan: Fan) -> KerasTensor:
    """What each window sees: [B, H x W x T, X] -> [B x W, I, X], with zeros around the grid."""
    numbers = grid_BNX.shape[-1]
    types = grid_BNX.shape[1] // fan.side**2
    padding = (fan.before, fan.after)
    grid = ops.reshape(grid_BNX, (-1, fan.side, fan.side, types * numbers))
    grid = ops.pad(grid, ((0, 0), padding, padding, (0, 0)))
    grid = ops.reshape(grid, (-1, fan.padded**2, types * numbers))
    return ops.reshape(ops.take(grid, positions(fan), axis=1), (-1, fan.kernel**2 * types, numbers))


def log_normaliser_over_windows(normaliser_BI: KerasTensor, fan: Fan) -> KerasTensor:
    """ln sum exp over all windows that a child is in, given to the child in each: [B x W, I] -> [B x W, I]."""
    seen, children = fan.windows**2 * fan.kernel**2, normaliser_BI.shape[1]
    types = children // fan.kernel**2
    by_place = ops.reshape(normaliser_BI, (-1, seen, types))
    by_place = ops.pad(by_place, ((0, 0), (0, 1), (0, 0)), constant_values=NOTHING)
    by_position_BST = ops.logsumexp(ops.take(by_place, places(fan), axis=1), axis=(2,))
    return ops.reshape(ops.take(by_position_BST, positions(fan), axis=1), (-1, children))
