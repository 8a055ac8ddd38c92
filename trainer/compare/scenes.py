"""scenes.png: crowded scenes, each beside both its sources and what the network made of either (as Sabour et al. 2017,
figure 5).

Axes: N scenes, H W image, C channels.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer import checkpoint
from trainer import config as configuration
from trainer.rundir import RunDirectory

SCENES = 6
CELL = 0.95  # inches
WRONG = "#c00000"
Array = NDArray[Any]


@dataclass(frozen=True)
class Decoded:
    """The first scenes of the test set. Reconstructions are of the two longest class capsules, no labels are shown to
    the network; of the two, the one whose class is a source's stands in that source's place."""

    scenes_NHWC: Array
    sources_N2HWC: Array
    reconstructions_N2HWC: Array
    labels_N2: Array
    found_N2: Array
    classes: tuple[str, ...]


def decode(run: Path) -> Decoded:
    """Runs the network of a finished run on scenes; imports TensorFlow."""
    from trainer import distributed, runtime
    from trainer.data import index as data_index
    from trainer.data import pipeline
    from trainer.model.network import longest
    from trainer.weights import network_of

    found = checkpoint.choose(RunDirectory(run).checkpoints, "last", lambda _: None)
    config = configuration.validated(json.loads(found.config), str(found.path))
    runtime.set_up(config, distributed.placed())
    index = data_index.load_index(config.data.uri, config.storage)
    net = network_of(config, found)
    with pipeline.test_batches(config, index, 0, 1) as batches:
        batch = {name: value[:SCENES] for name, value in next(batches).items()}
    outputs = net(batch["image"], objects=2)
    labels_N2 = batch["label"].numpy()
    found_N2, reconstructions_N2HWC = in_order_of(
        labels_N2, longest(outputs.class_scores_BJ, 2).numpy(), outputs.reconstruction_BHWC.numpy()
    )
    return Decoded(
        batch["image"].numpy(),
        batch["sources"].numpy(),
        reconstructions_N2HWC,
        labels_N2,
        found_N2,
        tuple(index.classes),
    )


def in_order_of(labels_N2: Array, found_N2: Array, pictures_N2HWC: Array) -> tuple[Array, Array]:
    """Both exchanged in scenes where more classes then stand where the labels do."""
    agreeing_N = (found_N2 == labels_N2).sum(axis=1)
    exchanged_N = (found_N2[:, ::-1] == labels_N2).sum(axis=1) > agreeing_N
    return (
        np.where(exchanged_N[:, None], found_N2[:, ::-1], found_N2),
        np.where(exchanged_N[:, None, None, None, None], pictures_N2HWC[:, ::-1], pictures_N2HWC),
    )


def picture(title: str, decoded: Decoded) -> bytes:
    """A row for each scene, as PNG: the scene, then either source and its reconstruction, with names of classes."""
    count = len(decoded.scenes_NHWC)
    figure = Figure(figsize=(5 * (CELL + 0.25), count * (CELL + 0.22) + 0.7), layout="constrained")
    panels = figure.subplots(count, 5, squeeze=False)
    heads = ["scene", "first", "reconstructed", "second", "reconstructed"]
    for row, axes in enumerate(panels):
        pictures = [decoded.scenes_NHWC[row]]
        captions: list[tuple[str, str]] = [("", "black")]
        for number in range(2):
            label, found = decoded.labels_N2[row, number], decoded.found_N2[row, number]
            pictures += [decoded.sources_N2HWC[row, number], decoded.reconstructions_N2HWC[row, number]]
            captions += [(decoded.classes[label], "black"), (decoded.classes[found], "black")]
            if found not in decoded.labels_N2[row]:
                captions[-1] = (decoded.classes[found], WRONG)
        for axis, image_HWC, (caption, colour) in zip(axes, pictures, captions, strict=True):
            image_HWC = np.clip(np.nan_to_num(image_HWC, nan=0.0), 0, 1)
            axis.imshow(image_HWC.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(caption, color=colour, size=7, labelpad=2)
    for axis, head in zip(panels[0], heads, strict=True):
        axis.set_title(head, size=8)
    figure.suptitle(title, size=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()
