"""Trained networks in a few lines of Python:

    import trainer
    model = trainer.load("runs/quick-20260101-120000")
    print(model.classify("shoe.png"))

Axes: B batch, H W image, C channels, J classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from trainer import checkpoint
from trainer import config as configuration
from trainer.data import index as data_index
from trainer.data import pipeline
from trainer.errors import CheckpointError, DataError
from trainer.export.folder import CLASSES, KERAS, SAVED_MODEL
from trainer.export.saved_model import SIGNATURE
from trainer.output import copies
from trainer.rundir import RunDirectory
from trainer.weights import network_of

Picture = str | Path | np.ndarray


@dataclass(frozen=True)
class Answer:
    """What was seen in one image. ``scores`` are the lengths of the class capsules, by class name."""

    name: str
    label: int
    score: float
    scores: dict[str, float]

    def __str__(self) -> str:
        return f"{self.name} ({self.score:.2f})"


@dataclass(frozen=True)
class Classifier:
    """A network from a run or an export. ``scores_BJ`` takes uint8 images [B, H, W, C] of the size of its data."""

    classes: tuple[str, ...]
    channels: int
    scores_BJ: Callable[[np.ndarray], np.ndarray]

    def classify(self, picture: Picture) -> Answer:
        """One image: a file, or uint8 [H, W, C] or [H, W].

        Raises:
            DataError: not an image, or of a size that does not fit the network.
        """
        return self.classify_all([picture])[0]

    def classify_all(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Images of one size together; see ``classify``."""
        images_BHWC = np.stack([_pixels(picture, self.channels) for picture in pictures])
        return [self._answer(scores_J) for scores_J in self.scores_BJ(images_BHWC)]

    def _answer(self, scores_J: np.ndarray) -> Answer:
        label = int(scores_J.argmax())
        scores = dict(zip(self.classes, map(float, scores_J), strict=True))
        return Answer(self.classes[label], label, scores[self.classes[label]], scores)


def load(path: str | Path, which: str = "best") -> Classifier:
    """A run, in a folder or gs://BUCKET/... (``which`` checkpoint of it: best, last or a step), or a folder written by
    ``capsnet export``.

    Raises:
        CheckpointError: it is neither, or there is no such checkpoint.
    """
    with copies.local(path, which) as folder:
        return _load_export(folder) if (folder / CLASSES).exists() else _load_run(folder, which)


def _load_run(folder: Path, which: str) -> Classifier:
    if not RunDirectory(folder).exists:
        raise CheckpointError(
            f"{folder}: neither a run directory nor an export; name a folder that 'capsnet train' or 'export' made"
        )
    found = checkpoint.choose(RunDirectory(folder).checkpoints, which, print)
    config = configuration.validated(json.loads(found.config), str(found.path))
    net = network_of(config, found)
    forward = tf.function(lambda images_BHWC: net(images_BHWC).class_scores_BJ)

    def scores_BJ(images_BHWC: np.ndarray) -> np.ndarray:
        scores: np.ndarray = forward(tf.constant(pipeline.prepare_images(config, images_BHWC))).numpy()
        return scores

    classes = data_index.load_index(config.data.uri, config.storage).classes
    return Classifier(tuple(classes), config.model.channels, scores_BJ)


def _load_export(folder: Path) -> Classifier:
    classes = json.loads((folder / CLASSES).read_text())
    if (folder / SAVED_MODEL).exists():
        signature = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
        channels = signature.structured_input_signature[1]["images"].shape[-1]

        def scores_BJ(images_BHWC: np.ndarray) -> np.ndarray:
            scores: np.ndarray = signature(images=tf.constant(images_BHWC))["class_scores"].numpy()
            return scores
    else:
        model = keras.models.load_model(folder / KERAS)
        channels = model.input_shape[-1]

        def scores_BJ(images_BHWC: np.ndarray) -> np.ndarray:
            scores: np.ndarray = model(images_BHWC)["class_scores"].numpy()
            return scores

    return Classifier(tuple(classes), channels, scores_BJ)


def _pixels(picture: Picture, channels: int) -> np.ndarray:
    """uint8 [H, W, C]."""
    if isinstance(picture, np.ndarray):
        pixels = picture[..., None] if picture.ndim == 2 else picture
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != channels:
            raise DataError(f"an image must be uint8 [H, W, {channels}], not {picture.dtype} {list(picture.shape)}")
        return pixels
    try:
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{picture}: cannot be read as an image ({error})") from None
    return pixels[..., None] if channels == 1 else pixels
