"""What was written, read back, gives the scores of the network.

Axes: B batch, H W image, C channels, J classes.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.config import RunConfig
from trainer.data import pipeline
from trainer.data.augment import CENTRAL_SIDE
from trainer.errors import CapsnetError
from trainer.export.saved_model import SIGNATURE
from trainer.model.network import CapsNet

RECORDS = 2
TOLERANCE = 1e-3  # of scores: rounding of float32 is 1e-7 to 1e-5 behind routing, an error in a formula is far larger


def images(config: RunConfig) -> np.ndarray:
    """Noise uint8 [B, H, W, C], of a size of which the network sees pixels as they are, not between pixels."""
    size = config.model.image_size
    if config.data.augment.resize == "random_resized_crop":
        size = round(size / CENTRAL_SIDE)
    shape = (RECORDS, size, size, config.model.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def network_scores(config: RunConfig, net: CapsNet, images_BHWC: np.ndarray) -> np.ndarray:
    """class_scores [B, J] of the network itself."""
    scores: np.ndarray = net(pipeline.prepare_images(config, images_BHWC)).class_scores_BJ.numpy()
    return scores


def keras_difference(path: Path, images_BHWC: np.ndarray, expected_BJ: np.ndarray) -> float:
    """The largest difference of a score. Raises CapsnetError where it is none of rounding."""
    return _difference(path, keras.models.load_model(path)(images_BHWC)["class_scores"], expected_BJ)


def saved_model_difference(folder: Path, images_BHWC: np.ndarray, expected_BJ: np.ndarray) -> float:
    """As ``keras_difference``."""
    loaded = tf.saved_model.load(str(folder))
    scores_BJ = loaded.signatures[SIGNATURE](images=tf.constant(images_BHWC))["class_scores"]
    return _difference(folder, scores_BJ, expected_BJ)


def _difference(path: Path, scores_BJ: tf.Tensor, expected_BJ: np.ndarray) -> float:
    difference = float(np.max(np.abs(scores_BJ - expected_BJ)))
    if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(expected_BJ)))):
        raise CapsnetError(
            f"{path.name}: its scores differ by {difference:.2g} from the network's, so nothing was written; --format "
            "leaves one of the two models out"
        )
    return difference
