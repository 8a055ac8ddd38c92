"""A checkpoint as a SavedModel: uint8 images in, class scores and labels out, at any batch size, without this package.

Axes: B batch, H W image, C channels, J classes.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from trainer import checkpoint
from trainer import config as configuration
from trainer.data import index as data_index
from trainer.errors import ConfigError
from trainer.rundir import RunDirectory


def export(run: Path, destination: Path, which: str = "best") -> None:
    """Writes the SavedModel, with the class names in ``assets.extra/classes.json``.

    Raises:
        ConfigError: the destination exists. CheckpointError: there is no such checkpoint.
    """
    if destination.exists():
        raise ConfigError(f"{destination}: exists; choose another folder or remove it")
    found = checkpoint.choose(RunDirectory(run).checkpoints, which, print)
    config = configuration.validated(json.loads(found.config), str(found.path))
    names = data_index.load_index(config.data.uri, config.storage).classes

    import tensorflow as tf

    from trainer.data import augment
    from trainer.library import CLASSES
    from trainer.weights import network_of

    net = network_of(config, found)
    shape = [None, None, None, config.model.channels]

    class Exported(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="capsnet")
            self.kept = [variable.value for variable in net.variables]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")])
        def classify(self, images_BHWC: tf.Tensor) -> dict[str, tf.Tensor]:
            fitted_BHWC = augment.central_fit(images_BHWC, config.model.image_size, config.data.augment.resize)
            scores_BJ = net(augment.to_unit(fitted_BHWC)).class_scores_BJ
            return {"class_scores": scores_BJ, "label": tf.argmax(scores_BJ, axis=-1)}

    temporary = destination.with_name(f".writing-{destination.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    exported = Exported()
    try:
        tf.saved_model.save(exported, str(temporary), signatures={"serving_default": exported.classify})
        extra = temporary / "assets.extra"
        extra.mkdir()
        (extra / CLASSES).write_text(json.dumps(list(names)) + "\n")
        os.rename(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
