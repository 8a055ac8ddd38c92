"""The network as a SavedModel, with its own routing: votes are made in blocks where it makes them so.

Axes: B batch, H W image, C channels, J classes, Q class pose size.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from trainer.config import RunConfig
from trainer.data import augment
from trainer.model.network import CapsNet

SIGNATURE = "serving_default"


class Exported(tf.Module):
    """uint8 images [B, H, W, C] to what the Keras model gives."""

    def __init__(self, config: RunConfig, net: CapsNet) -> None:
        super().__init__(name="capsnet")
        self.kept = [variable.value for variable in net.variables]
        size, resize = config.model.image_size, config.data.augment.resize

        def classify(images_BHWC: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = net(augment.to_unit(augment.central_fit(images_BHWC, size, resize)))
            scores_BJ = outputs.class_scores_BJ
            label_B = tf.argmax(scores_BJ, axis=-1, output_type=tf.int32)
            found = {"class_scores": scores_BJ, "label": label_B, "poses": outputs.poses_BJQ}
            if outputs.reconstruction_BHWC is not None:
                found["reconstruction"] = outputs.reconstruction_BHWC
            return found

        images = tf.TensorSpec([None, None, None, config.model.channels], tf.uint8, name="images")
        self.classify = tf.function(classify, input_signature=[images])


def save(config: RunConfig, net: CapsNet, folder: Path) -> None:
    """Writes it into the folder. Raises OSError where that has no room for it."""
    exported = Exported(config, net)
    try:
        tf.saved_model.save(exported, str(folder), signatures={SIGNATURE: exported.classify})
    except tf.errors.OpError as error:  # "... <file>; <reason> [Op:SaveV2] ..."
        raise OSError(error.message.partition(" [Op:")[0].rpartition("; ")[2]) from None
