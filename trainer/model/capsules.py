"""Capsule layers: from feature maps to capsules, and from children to parents.

Axes: B batch, H W grid, C channels, I children, T transforms (I, or child types), J parents, P/Q pose sizes.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.config import PrimaryConfig, RoutingConfig
from trainer.model import routing
from trainer.model.initial import glorot, layer_seed
from trainer.model.routing.trace import RoutingTrace
from trainer.model.squash import squash

TRANSFORM_STDDEV = 0.1  # of the authors' code; suits tens of parents, with hundreds routing starts nearly uniform


class PrimaryCapsules(keras.layers.Layer):
    """The first capsules: a convolution whose channels are cut into poses (Sabour et al. 2017, section 4).

    [B, H, W, C] -> [B, I, P] in at least float32, squashed; I = height x width x types, types fastest.
    """

    def __init__(self, config: PrimaryConfig, *, seed: int, dtype: str, name: str = "primary") -> None:
        super().__init__(name=name, dtype=dtype)
        self.pose = config.pose
        self.conv = keras.layers.Conv2D(
            config.types * config.pose,
            config.kernel,
            strides=config.stride,
            padding=config.padding,
            kernel_initializer=glorot(seed, f"{name}/conv"),
            dtype=dtype,
            name="conv",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)

    def call(self, features_BHWC: tf.Tensor) -> tf.Tensor:
        grid_BHWC = self.conv(features_BHWC)
        _, height, width, channels = grid_BHWC.shape
        return squash(tf.reshape(grid_BHWC, [-1, height * width * channels // self.pose, self.pose]))


class CapsuleLayer(keras.layers.Layer):
    """Children to parents by a routing algorithm: [B, I, P] -> ([B, J, Q], trace or None).

    The transform is [I, J, P, Q], or [T, J, P, Q] with ``transforms`` = T, shared by all positions of a type.
    """

    def __init__(
        self,
        parents: int,
        pose: int,
        config: RoutingConfig,
        *,
        transforms: int,
        seed: int,
        dtype: str,
        name: str = "class_capsules",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.parents, self.pose, self.transforms, self.routing = parents, pose, transforms, config
        self.seed = layer_seed(seed, name)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.transform_TJPQ = self.add_weight(
            name="transform",
            shape=(self.transforms, self.parents, input_shape[-1], self.pose),
            initializer=keras.initializers.TruncatedNormal(stddev=TRANSFORM_STDDEV, seed=self.seed),
        )
        self.extra = {
            name: self.add_weight(
                name=name, shape=spec.shape, initializer=keras.initializers.Constant(spec.initial), autocast=False
            )
            for name, spec in routing.get(self.routing.algorithm).weights(self.routing, self.parents, self.pose).items()
        }

    def call(
        self, poses_BIP: tf.Tensor, *, trace: bool = False, coupling_records: int = 0
    ) -> tuple[tf.Tensor, RoutingTrace | None]:
        return routing.get(self.routing.algorithm).route(
            poses_BIP,
            tf.convert_to_tensor(self.transform_TJPQ),
            {name: tf.convert_to_tensor(weight) for name, weight in self.extra.items()},
            self.routing,
            trace=trace,
            coupling_records=coupling_records,
        )
