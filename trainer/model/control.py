"""The control without capsules: an ordinary convolutional head on the same stem, as large as the capsules it replaces.

Axes: B batch, H W grid, C channels, J classes, Q numbers of a class.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.config import ModelConfig
from trainer.model.costs import control_width
from trainer.model.initial import glorot, he_normal
from trainer.model.routing import Capsules
from trainer.model.squash import lengths, squash


class ConvolutionalHead(keras.layers.Layer):
    """[B, H, W, C] -> J "capsules" of Q numbers, which no routing made.

    A convolution with ReLU (kernel, stride and padding of the primary capsules; a depthwise and a 1x1 one where these
    are grouped), the mean over positions, and a dense layer to J x Q numbers. These are squashed and their lengths are
    the scores, so that losses, decoder and whatever reads class capsules see the same kind of output; what differs is
    how it was made.
    """

    def __init__(self, config: ModelConfig, *, seed: int, dtype: str, name: str = "control") -> None:
        super().__init__(name=name, dtype=dtype)
        self.parents, self.pose = config.classes, config.head.pose
        options = {
            "filters": control_width(config),
            "kernel_size": config.primary.kernel,
            "strides": config.primary.stride,
            "padding": config.primary.padding,
            "activation": "relu",
            "dtype": dtype,
            "name": "conv",
        }
        self.conv: keras.layers.Layer
        if config.primary.grouped:
            self.conv = keras.layers.SeparableConv2D(
                depthwise_initializer=he_normal(seed, f"{name}/depthwise"),
                pointwise_initializer=he_normal(seed, f"{name}/pointwise"),
                **options,
            )
        else:
            self.conv = keras.layers.Conv2D(kernel_initializer=he_normal(seed, f"{name}/conv"), **options)
        self.classes = keras.layers.Dense(
            self.parents * self.pose, kernel_initializer=glorot(seed, f"{name}/classes"), dtype=dtype, name="classes"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)
        self.classes.build((None, self.conv.filters))

    def call(self, features_BHWC: tf.Tensor) -> Capsules:
        mean_BC = tf.reduce_mean(self.conv(features_BHWC), axis=[1, 2])
        poses_BJQ = squash(tf.reshape(self.classes(mean_BC), [-1, self.parents, self.pose]))
        return Capsules(poses_BJQ, lengths(poses_BJQ))
