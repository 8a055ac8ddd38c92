"""A run or an export as one function of images.

Axes: B batch, H W image, C channels, J classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import distributed, library, runtime
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data import augment
from trainer.data import index as data_index
from trainer.errors import CapsnetError
from trainer.predict.images import Pixels, Read, Sizes, reader, reader_for_export
from trainer.weights import network_of

BATCH = 64
"""Images at a time, at most: rows come soon, and a stop is heard soon."""


class Seen(NamedTuple):
    """Class scores, and what the decoder makes of the longest class capsule (of pairs: of either of the two)."""

    scores_BJ: NDArray[np.float32]
    reconstruction: NDArray[np.float32] | None  # [B, H, W, C] or [B, N, H, W, C]


@dataclass(frozen=True)
class Network:
    """``read``: an image file as ``look`` takes it, which takes images uint8 [B, H, W, C] of one size."""

    classes: tuple[str, ...]
    objects: int  # in an image
    batch: int
    read: Read
    look: Callable[[Pixels], Seen]
    pads: bool
    """Whether a batch is filled up: each other number of images costs a compilation."""


def of_run(config: RunConfig, found: Checkpoint, *, reconstruct: bool) -> Network:
    """The network of a checkpoint.

    Raises:
        DataError: the data set, which has the names of the classes, is not there.
    """
    index = data_index.read_index(config.data.uri, config.storage)
    runtime.set_up(config, distributed.placed())
    net = network_of(config, found)

    @tf.function(autograph=False)
    def forward(images_BHWC: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = net(augment.to_unit(images_BHWC), objects=config.objects)
        return outputs.class_scores_BJ, *([outputs.reconstruction_BHWC] if reconstruct else [])

    def look(images_BHWC: Pixels) -> Seen:
        scores_BJ, *reconstruction = (tensor.numpy() for tensor in forward(tf.constant(images_BHWC)))
        return Seen(scores_BJ, reconstruction[0] if reconstruction else None)

    read = reader(config, Sizes.of(config, index))
    return Network(data_index.label_names(index, config), config.objects, _batch(config), read, look, pads=True)


def of_export(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Network:
    """A folder written by ``capsnet export``, which preprocesses by itself; ``config`` is that of its run."""
    index = None
    if config.data.augment.resize == "crop":
        try:
            index = data_index.read_index(config.data.uri, config.storage)
        except CapsnetError:
            say(f"{config.data.uri}: not there to say how large its images are; crops are taken of images as they are")
    runtime.set_up_beside()
    classifier = library.load(folder)
    return Network(
        classifier.classes,
        config.objects,
        _batch(config),
        reader_for_export(config, Sizes.of(config, index)),
        lambda images_BHWC: Seen(classifier.scores_BJ(images_BHWC), None),
        pads=False,
    )


def _batch(config: RunConfig) -> int:
    return min(config.evaluate.batch_size, BATCH)
