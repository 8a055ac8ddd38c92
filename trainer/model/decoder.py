"""Reconstruction of the image from one class capsule (Sabour et al. 2017, section 4.1 and figure 2).

Axes: B batch, N objects of an image, H W image, C channels, J classes, Q class pose size.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from trainer.model.initial import glorot, he_normal
from trainer.model.squash import at_least_float32


class Decoder(keras.layers.Layer):
    """([B, J, Q], [B]) -> [B, H, W, C] in 0..1: all capsules but one are set to 0, then dense layers.

    With classes [B, N] each of the N is reconstructed by itself: [B, N, H, W, C].
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        image_shape: tuple[int, int, int],
        *,
        seed: int,
        dtype: str,
        name: str = "decoder",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.image_shape = image_shape
        self.hidden = [
            keras.layers.Dense(
                units,
                activation="relu",
                kernel_initializer=he_normal(seed, f"{name}/hidden_{index}"),
                dtype=dtype,
                name=f"hidden_{index}",
            )
            for index, units in enumerate(hidden)
        ]
        self.pixels = keras.layers.Dense(
            math.prod(image_shape), kernel_initializer=glorot(seed, f"{name}/pixels"), dtype=dtype, name="pixels"
        )

    def build(self, input_shape: tuple[None, int, int]) -> None:
        width = input_shape[1] * input_shape[2]
        for layer in [*self.hidden, self.pixels]:
            layer.build((None, width))
            width = layer.units

    def call(self, poses_BJQ: tf.Tensor, class_B: tf.Tensor) -> tf.Tensor:
        _, classes, pose = poses_BJQ.shape
        if class_B.shape.rank == 2:
            objects = class_B.shape[1]
            each_BHWC = self.call(tf.repeat(poses_BJQ, objects, axis=0), tf.reshape(class_B, [-1]))
            return tf.reshape(each_BHWC, [-1, objects, *self.image_shape])
        mask_BJ = tf.one_hot(class_B, classes, dtype=poses_BJQ.dtype)
        features_BX = tf.reshape(poses_BJQ * mask_BJ[..., tf.newaxis], [-1, classes * pose])
        for layer in self.hidden:
            features_BX = layer(features_BX)
        pixels_BX = tf.sigmoid(at_least_float32(self.pixels(features_BX)))
        return tf.reshape(pixels_BX, [-1, *self.image_shape])
