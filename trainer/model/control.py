"""The control without capsules: an ordinary convolutional head on the same stem, as large as the capsules it replaces.

Axes: B batch, H W grid, C channels, J classes, Q numbers of a class.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from trainer.config import ModelConfig
from trainer.model.costs import control_width, shares_positions
from trainer.model.initial import glorot, he_normal
from trainer.model.routing import Capsules
from trainer.model.squash import at_least_float32

INITIAL_SCORE = 0.1  # m- of the margin loss: a thousand absent classes cost nothing at first
LOGIT = math.log(INITIAL_SCORE / (1 - INITIAL_SCORE))


class ConvolutionalHead(keras.layers.Layer):
    """[B, H, W, C] -> J "capsules" that no routing made: scores in 0..1 and, for the decoder, Q numbers of each class.

    A convolution with ReLU (kernel, stride and padding of the primary capsules; a depthwise and a 1x1 one where these
    are grouped). Where each child has its transform, so has each position here: what comes next sees all positions.
    Where transforms are shared, it sees the mean over positions. A dense layer and the logistic function make the
    scores, which every loss takes as it takes lengths; under a softmax such scores die, as their slope is 0 once the
    absent classes have pushed all of them down, so there they are linear. Another dense layer makes the class
    features of the decoder, which sees those of one class; without a decoder the scores are all there is, as poses of
    size 1.
    """

    def __init__(self, config: ModelConfig, *, seed: int, dtype: str, name: str = "control") -> None:
        super().__init__(name=name, dtype=dtype)
        self.parents, self.pose = config.classes, config.head.pose if config.decoder.hidden else 1
        self.mean = shares_positions(config)
        self.linear = config.head.scores == "linear"
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
        self.scores = keras.layers.Dense(
            self.parents,
            kernel_initializer=glorot(seed, f"{name}/scores"),
            bias_initializer=keras.initializers.Constant(0.0 if self.linear else LOGIT),
            dtype=dtype,
            name="scores",
        )
        self.features = None
        if config.decoder.hidden:
            self.features = keras.layers.Dense(
                self.parents * self.pose,
                kernel_initializer=glorot(seed, f"{name}/features"),
                dtype=dtype,
                name="features",
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)
        _, height, width, channels = self.conv.compute_output_shape(input_shape)
        seen = channels if self.mean else height * width * channels
        for layer in (self.scores, self.features):
            if layer is not None:
                layer.build((None, seen))

    def call(self, features_BHWC: tf.Tensor) -> Capsules:
        grid_BHWC = self.conv(features_BHWC)
        _, height, width, channels = grid_BHWC.shape
        seen_BX = (
            tf.reduce_mean(grid_BHWC, axis=[1, 2])
            if self.mean
            else tf.reshape(grid_BHWC, [-1, height * width * channels])
        )
        scores_BJ = at_least_float32(self.scores(seen_BX))
        scores_BJ = scores_BJ if self.linear else tf.sigmoid(scores_BJ)
        if self.features is None:
            return Capsules(scores_BJ[..., tf.newaxis], scores_BJ)
        poses_BJQ = tf.reshape(self.features(seen_BX), [-1, self.parents, self.pose])
        return Capsules(at_least_float32(poses_BJQ), scores_BJ)
