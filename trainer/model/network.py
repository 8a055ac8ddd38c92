"""A capsule network: stem, primary, convolutional and class capsules, decoder; or its control without capsules.

    net = build(config.model)
    outputs = net(images_BHWC)

Axes: B batch, N objects of an image, H W image, C channels, I children, J classes, P/Q child/parent pose size.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.config import ModelConfig, Precision
from trainer.model import concurrent
from trainer.model.capsules import CapsuleLayer, PrimaryCapsules
from trainer.model.control import ConvolutionalHead
from trainer.model.convolution import ConvolutionalCapsules
from trainer.model.decoder import Decoder
from trainer.model.initial import policy
from trainer.model.routing import Capsules
from trainer.model.routing.fan import Fan
from trainer.model.routing.trace import RoutingTrace
from trainer.model.shapes import shapes
from trainer.model.stem import stem


class Outputs(NamedTuple):
    """What a network returns; scores, poses and reconstruction are in at least float32."""

    class_scores_BJ: tf.Tensor  # activations of the class capsules
    poses_BJQ: tf.Tensor
    reconstruction_BHWC: tf.Tensor | None  # None without a decoder; of several objects [B, N, H, W, C]
    traces: dict[str, RoutingTrace]  # by capsule layer; empty unless asked for


class CapsNet(keras.Model):
    """Call as ``net(images_BHWC, labels_B=None, trace=False, coupling_records=0, objects=1) -> Outputs``.

    With labels the decoder sees the capsule of the true class, otherwise the longest one; where there are several
    things in an image, labels are [B, N], or ``objects`` says how many, and each is decoded by itself. ``trace`` adds
    what routing did, ``coupling_records`` the couplings themselves of so many records; a control has none.
    """

    def __init__(self, config: ModelConfig, *, precision: Precision = "float32", seed: int = 0) -> None:
        dtype = policy(precision)
        super().__init__(name="capsnet", dtype=dtype)
        self.image_shape = (config.image_size, config.image_size, config.channels)
        self.stem = stem(config.stem, seed=seed, dtype=dtype)
        self.control = None
        if config.head.kind == "capsules":
            self._add_capsules(config, seed, dtype)
        else:
            self.control = ConvolutionalHead(config, seed=seed, dtype=dtype)
        self.decoder = None
        if config.decoder.hidden:
            self.decoder = Decoder(config.decoder.hidden, self.image_shape, seed=seed, dtype=dtype)

    def _add_capsules(self, config: ModelConfig, seed: int, dtype: str) -> None:
        self.primary = PrimaryCapsules(config.primary, seed=seed, dtype=dtype)
        sizes = shapes(config)
        self.capsule_layers = [
            ConvolutionalCapsules(
                layer.sizes.parents,
                layer.sizes.pose,
                config.routing,
                child_types=layer.child_types,
                rows=config.pose_rows,
                fan=Fan.create(layer.child_side, kernel, stride, config.layers.padding),
                residual=layer.residual,
                seed=seed,
                dtype=dtype,
                name=f"layer_{index}",
            )
            for index, (layer, kernel, stride) in enumerate(
                zip(sizes.layers, config.layers.kernels, config.layers.strides, strict=True)
            )
        ]
        self.class_capsules = CapsuleLayer(
            config.classes,
            config.head.pose,
            config.routing,
            children=sizes.children,
            transforms=sizes.transforms,
            rows=config.pose_rows,
            coordinates=sizes.head_side if config.head.coordinates else 0,
            rank=config.head.rank if config.head.transform == "low_rank" else 0,
            initial_stddev=None if config.head.initial_scale == "parents" else config.head.initial_stddev,
            seed=seed,
            dtype=dtype,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.stem.build(input_shape)
        features_shape = self.stem.compute_output_shape(input_shape)
        head = self.class_capsules if self.control is None else self.control
        if self.control is None:
            self.primary.build(features_shape)
            pose = self.primary.pose
            for layer in [*self.capsule_layers, self.class_capsules]:
                layer.build((None, None, pose))
                pose = layer.pose
        else:
            self.control.build(features_shape)
        if self.decoder is not None:
            self.decoder.build((None, head.parents, head.pose))

    def call(
        self,
        images_BHWC: tf.Tensor,
        labels_B: tf.Tensor | None = None,
        trace: bool = False,
        coupling_records: int = 0,
        objects: int = 1,
    ) -> Outputs:
        features_BHWC = self.stem(tf.cast(images_BHWC, self.compute_dtype))
        if self.control is not None:
            capsules = self.control(features_BHWC)
            traces: dict[str, RoutingTrace] = {}
        else:
            capsules, traces = self.route(self.primary(features_BHWC), trace, coupling_records)
        poses_BJQ, class_scores_BJ = capsules
        reconstruction_BHWC = None
        if self.decoder is not None:
            class_B = longest(class_scores_BJ, objects) if labels_B is None else labels_B
            reconstruction_BHWC = self.decoder(poses_BJQ, class_B)
        return Outputs(class_scores_BJ, poses_BJQ, reconstruction_BHWC, traces)

    def route(
        self, capsules: Capsules, trace: bool = False, coupling_records: int = 0
    ) -> tuple[Capsules, dict[str, RoutingTrace]]:
        """Class capsules from primary ones, and a trace of each capsule layer where asked for."""
        layers, routing = [*self.capsule_layers, self.class_capsules], self.class_capsules.routing
        if routing.algorithm == "inverted" and routing.concurrent:
            return concurrent.route(
                layers, capsules, routing.iterations, trace=trace, coupling_records=coupling_records
            )
        traces: dict[str, RoutingTrace] = {}
        for layer in layers:
            capsules, routed = layer(capsules, trace=trace, coupling_records=coupling_records)
            if routed is not None:
                traces[layer.name] = routed
        return capsules, traces


def longest(class_scores_BJ: tf.Tensor, objects: int) -> tf.Tensor:
    """The class with the largest score [B], or so many of them, the largest first [B, N]."""
    if objects == 1:
        return tf.argmax(class_scores_BJ, axis=-1)
    return tf.math.top_k(class_scores_BJ, objects).indices


def build(config: ModelConfig, *, precision: Precision = "float32", seed: int = 0) -> CapsNet:
    """A network with all its weights, whose initial values are a function of configuration and seed.

    Raises:
        ConfigError: sizes that do not fit each other; see ``shapes.shapes`` and ``costs.control_width``.
    """
    shapes(config)
    net = CapsNet(config, precision=precision, seed=seed)
    net.build((None, *net.image_shape))
    return net
