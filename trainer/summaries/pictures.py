"""Pictures: images beside reconstructions, a pose varied number by number, where a class capsule comes from.

Axes: N records, H W image, C channels, I children, J parents, R routing iterations, Q class pose size, S steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Picture = NDArray[np.uint8]

RECORDS = 16
PIXELS = 2**18  # of the images in one picture: large images are shown in smaller numbers
COLUMNS = 4
CELL_PIXELS = 56  # smaller images are shown larger
GAP, GREY = 4, 128


def side_by_side(images_NHWC: Array, reconstructions_NHWC: Array, cell: int = CELL_PIXELS) -> Picture:
    """Pairs of image and reconstruction, both in 0..1, as one uint8 picture [H, W, C], on grey, four pairs a row.

    Of several reconstructions [N, objects, H, W, C] all stand beside the image. Images smaller than ``cell`` pixels are
    enlarged by a whole factor; what is not a number is black.
    """
    height, width = images_NHWC.shape[1:3]
    several = [reconstructions_NHWC] if reconstructions_NHWC.ndim == 4 else list(reconstructions_NHWC.swapaxes(0, 1))
    beside = [images_NHWC, *several]
    shown = max(1, min(len(images_NHWC), RECORDS, PIXELS // (len(beside) * height * width)))
    pairs_NHWC = np.concatenate([part[:shown] for part in beside], axis=2)
    return _grid(pairs_NHWC, COLUMNS, max(1, cell // height))


def varied(reconstructions_QSHWC: Array) -> Picture:
    """A row for each number of a pose, a column for each step."""
    numbers, steps, height, width, channels = reconstructions_QSHWC.shape
    shown = max(1, min(numbers, 4 * PIXELS // (steps * height * width)))
    cells = reconstructions_QSHWC[:shown].reshape(-1, height, width, channels)
    return _grid(cells, steps, max(1, CELL_PIXELS // 2 // height))


def coupling_maps(
    images_NHWC: Array, coupling_RNIJ: Array, child_activations_NI: Array, winner_N: Array, side: int
) -> Picture:
    """Beside each image a map for each iteration: sum over types of c_ij a_i for the winning parent j.

    Children lie on a grid of ``side`` each way, types fastest. Each map goes from black, nothing, to white, its own
    largest value.
    """
    records, height = coupling_RNIJ.shape[1], images_NHWC.shape[1]
    won_RNI = np.take_along_axis(coupling_RNIJ, winner_N[None, :, None, None], axis=-1)[..., 0]
    flow_RNI = won_RNI * np.maximum(child_activations_NI, 0)
    flow_RNHW = flow_RNI.reshape(len(flow_RNI), records, side, side, -1).sum(axis=-1)
    largest = np.maximum(flow_RNHW.max(axis=(-2, -1), keepdims=True), 1e-30)
    rows = np.arange(height) * side // height  # each pixel's position on the grid
    maps_RNHW1 = (flow_RNHW / largest)[:, :, rows][:, :, :, rows][..., None]
    channels = images_NHWC.shape[-1]
    beside = [images_NHWC[:records], *(np.repeat(map_NHW1, channels, axis=-1) for map_NHW1 in maps_RNHW1)]
    shown = max(1, min(records, PIXELS // (len(beside) * height * height)))
    cells_NXHWC = np.stack(beside, axis=1)[:shown]
    return _grid(cells_NXHWC.reshape(-1, *cells_NXHWC.shape[2:]), len(beside), max(1, CELL_PIXELS // height))


def _grid(cells_NHWC: Array, columns: int, factor: int) -> Picture:
    """Cells in 0..1 on grey, enlarged by a factor."""
    cells_NHWC = np.round(255 * np.clip(np.nan_to_num(cells_NHWC, nan=0.0), 0, 1)).astype(np.uint8)
    cells_NHWC = cells_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)
    cells_NHWC = np.pad(cells_NHWC, [(0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=GREY)
    columns = min(len(cells_NHWC), columns)
    cells_NHWC = np.pad(cells_NHWC, [(0, -len(cells_NHWC) % columns), (0, 0), (0, 0), (0, 0)], constant_values=GREY)
    count, height, width, channels = cells_NHWC.shape
    grid_HWC = cells_NHWC.reshape(count // columns, columns, height, width, channels).swapaxes(1, 2)
    grid_HWC = grid_HWC.reshape(count // columns * height, columns * width, channels)
    return np.pad(grid_HWC, [(GAP, 0), (GAP, 0), (0, 0)], constant_values=GREY)
