"""Convolutions in front of the capsules: [B, H, W, C] -> [B, H', W', C'].

Normalisation is over groups of channels of one record (Wu and He 2018), never over other records, so that a
result does not depend on what else is in the batch.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.config import StemConfig
from trainer.model.initial import he_normal
from trainer.model.norm import GroupNormalization
from trainer.model.shapes import projects


def stem(config: StemConfig, *, seed: int, dtype: str) -> keras.layers.Layer:
    """The stem that the configuration names, not yet built."""
    make = {"conv": _conv_layers, "residual": _residual_layers}[config.kind]
    return Chain(make(config, seed, dtype), dtype=dtype, name="stem")


class Chain(keras.layers.Layer):
    """Layers one after the other; their names stand in the paths of their variables."""

    def __init__(self, layers: list[keras.layers.Layer], *, dtype: str, name: str) -> None:
        super().__init__(name=name, dtype=dtype)
        self.layers = layers

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def call(self, features_BHWC: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            features_BHWC = layer(features_BHWC)
        return features_BHWC


class ResidualBlock(keras.layers.Layer):
    """x + conv(relu(norm(conv(relu(norm(x)))))), pre-activation (He et al. 2016, "Identity Mappings", figure 4e)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm_groups: int, *, seed: int, dtype: str, name: str
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        path = f"stem/{name}"
        self.norm_0 = _norm(norm_groups, dtype, "norm_0")
        self.conv_0 = _conv3(outputs, stride, seed, dtype, path, "conv_0")
        self.norm_1 = _norm(norm_groups, dtype, "norm_1")
        self.conv_1 = _conv3(outputs, 1, seed, dtype, path, "conv_1")
        self.stride = stride
        self.shortcut = None
        if projects(inputs, outputs, stride):
            self.shortcut = keras.layers.Conv2D(
                outputs,
                1,
                use_bias=False,
                kernel_initializer=he_normal(seed, f"{path}/shortcut"),
                dtype=dtype,
                name="shortcut",
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.norm_0.build(input_shape)
        self.conv_0.build(input_shape)
        inner_shape = self.conv_0.compute_output_shape(input_shape)
        self.norm_1.build(inner_shape)
        self.conv_1.build(inner_shape)
        if self.shortcut is not None:
            self.shortcut.build(input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.conv_0.compute_output_shape(input_shape)

    def call(self, features_BHWC: tf.Tensor) -> tf.Tensor:
        active_BHWC = tf.nn.relu(self.norm_0(features_BHWC))
        if self.shortcut is not None:
            # sliced, not strided: oneDNN aborts the process in the gradient of a strided 1x1 convolution in bfloat16
            features_BHWC = self.shortcut(active_BHWC[:, :: self.stride, :: self.stride])
        inner_BHWC = tf.nn.relu(self.norm_1(self.conv_0(active_BHWC)))
        return features_BHWC + self.conv_1(inner_BHWC)


def _norm(groups: int, dtype: str, name: str) -> GroupNormalization:
    return GroupNormalization(groups, epsilon=1e-5, dtype=dtype, name=name)


def _relu(dtype: str, name: str) -> keras.layers.Activation:
    return keras.layers.Activation("relu", dtype=dtype, name=name)


def _conv3(channels: int, stride: int, seed: int, dtype: str, path: str, name: str) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        channels,
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=he_normal(seed, f"{path}/{name}"),
        dtype=dtype,
        name=name,
    )


def _conv_layers(config: StemConfig, seed: int, dtype: str) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = []
    for index, (channels, kernel, stride) in enumerate(
        zip(config.channels, config.kernel_sizes, config.strides, strict=True)
    ):
        layers.append(
            keras.layers.Conv2D(
                channels,
                kernel,
                strides=stride,
                padding=config.padding,
                kernel_initializer=he_normal(seed, f"stem/conv_{index}"),
                dtype=dtype,
                name=f"conv_{index}",
            )
        )
        norm, relu = _norm(config.norm_groups, dtype, f"norm_{index}"), _relu(dtype, f"relu_{index}")
        layers += {"none": [relu], "group": [norm, relu], "group_last": [relu, norm]}[config.norm]
    return layers


def _residual_layers(config: StemConfig, seed: int, dtype: str) -> list[keras.layers.Layer]:
    inputs = config.channels[0]
    layers: list[keras.layers.Layer] = [_conv3(inputs, 1, seed, dtype, "stem", "conv")]
    for stage, (outputs, stride) in enumerate(zip(config.channels, config.strides, strict=True)):
        for block in range(config.blocks):
            layers.append(
                ResidualBlock(
                    inputs,
                    outputs,
                    stride if block == 0 else 1,
                    config.norm_groups,
                    seed=seed,
                    dtype=dtype,
                    name=f"stage_{stage}_block_{block}",
                )
            )
            inputs = outputs
    return [*layers, _norm(config.norm_groups, dtype, "norm"), _relu(dtype, "relu")]
