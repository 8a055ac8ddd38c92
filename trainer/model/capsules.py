"""Capsule layers: from feature maps to capsules, and from children to parents.

Axes: B batch, H W grid, C channels, I children, T transforms (I, or child types), J parents, P/Q pose sizes,
K rank, N positions.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from trainer.config import HeadConfig, PrimaryConfig, RoutingConfig
from trainer.devices import on_gpu
from trainer.model import parts, routing
from trainer.model.initial import TRUNCATED, glorot, layer_seed, parents_stddev, truncated_normal
from trainer.model.routing import Capsules, LayerSizes, Transform, WeightSpec
from trainer.model.routing.choice import STREAMED, choose
from trainer.model.routing.fan import Fan
from trainer.model.routing.trace import RoutingTrace
from trainer.model.shapes import located, projected
from trainer.model.squash import at_least_float32, layer_norm, lengths, squash, squash_exponential
from trainer.model.transforms import of_matrices, onto_coordinates, with_coordinates


class PrimaryCapsules(keras.layers.Layer):
    """The first capsules: a convolution whose channels are cut into poses (Sabour et al. 2017, section 4).

    [B, H, W, C] -> I capsules of pose size P in at least float32, I = height x width x types, types fastest. Their
    activations are lengths, or made by a convolution of their own (Hinton, Sabour, Frosst 2018, section 4).
    """

    def __init__(self, config: PrimaryConfig, *, seed: int, dtype: str, name: str = "primary") -> None:
        super().__init__(name=name, dtype=dtype)
        self.pose = config.pose
        shared = {"strides": config.stride, "padding": config.padding, "dtype": dtype}
        initializer = glorot(seed, f"{name}/conv")
        self.conv: keras.layers.Layer
        if config.grouped:
            self.conv = Depthwise(config.kernel, depthwise_initializer=initializer, name="conv", **shared)
        else:
            self.conv = keras.layers.Conv2D(
                config.types * config.pose, config.kernel, kernel_initializer=initializer, name="conv", **shared
            )
        self.activation_conv = None
        if config.activation == "sigmoid":
            self.activation_conv = keras.layers.Conv2D(
                config.types,
                config.kernel,
                kernel_initializer=glorot(seed, f"{name}/activation_conv"),
                name="activation_conv",
                **shared,
            )
        self.nonlinearity = {
            "squash": squash,
            "squash_exponential": squash_exponential,
            "layer_norm": self._norm,
            "none": at_least_float32,
        }[config.nonlinearity]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)
        if self.activation_conv is not None:
            self.activation_conv.build(input_shape)
        if self.nonlinearity == self._norm:
            self.gain = self.add_weight(name="gain", shape=(self.pose,), initializer="ones", autocast=False)
            self.shift = self.add_weight(name="shift", shape=(self.pose,), initializer="zeros", autocast=False)

    def call(self, features_BHWC: tf.Tensor) -> Capsules:
        grid_BHWC = self.conv(features_BHWC)
        _, height, width, channels = grid_BHWC.shape
        poses_BIP = tf.reshape(grid_BHWC, [-1, height * width * channels // self.pose, self.pose])
        poses_BIP = self.nonlinearity(poses_BIP)
        if self.activation_conv is None:
            return Capsules(poses_BIP, lengths(poses_BIP))
        activations_BHWT = tf.sigmoid(at_least_float32(self.activation_conv(features_BHWC)))
        return Capsules(poses_BIP, tf.reshape(activations_BHWT, [-1, poses_BIP.shape[1]]))

    def _norm(self, poses_BIP: tf.Tensor) -> tf.Tensor:
        """Tsai et al. 2020, section 4; the same gain and shift for all capsules."""
        return layer_norm(poses_BIP) * tf.convert_to_tensor(self.gain) + tf.convert_to_tensor(self.shift)


class Depthwise(keras.layers.DepthwiseConv2D):
    """A depthwise convolution, which is a product and a sum over positions where the kernel has the grid's size.

    On a CPU that takes a third of the time, forward and backward.
    """

    def call(self, features_BHWC: tf.Tensor) -> tf.Tensor:
        height, width, channels = features_BHWC.shape[1:]
        if (height, width) != self.kernel_size or self.padding != "valid":
            return super().call(features_BHWC)
        kernel_XC = tf.reshape(tf.convert_to_tensor(self.kernel), [height * width, channels])
        terms_BXC = tf.reshape(features_BHWC, [-1, height * width, channels]) * kernel_XC
        summed_BC = tf.reduce_sum(at_least_float32(terms_BXC), axis=1) + tf.cast(self.bias, self.variable_dtype)
        return tf.reshape(tf.cast(summed_BC, self.compute_dtype), [-1, 1, 1, channels])


class CapsuleLayer(keras.layers.Layer):
    """Children to parents by a routing algorithm: Capsules -> (Capsules, trace or None).

    The transform is [I, P, J, Q], or [T, P, J, Q] with ``transforms`` = T, shared by all positions of a type; a large
    one is several variables. With
    ``rank`` = K > 0 it is a product, W_tj = A_t B_j: poses are first projected by A [T, P, K], then routed with
    B [1, K, J, Q], which is all children's. Poses with ``rows`` > 1 are matrices, and P and Q of the transform their
    rows; with ``coordinates`` = H children lie on a grid of H x H, and where is added to their votes.
    ``initial_stddev`` is of the transform before truncation at two of it; None: ``initial.parents_stddev``.
    """

    fan: Fan | None = None
    """Of a layer whose records are windows over a grid."""

    def __init__(
        self,
        parents: int,
        pose: int,
        config: RoutingConfig,
        *,
        children: int,
        transforms: int,
        rank: int = 0,
        rows: int = 1,
        coordinates: int = 0,
        initial_stddev: float | None = HeadConfig().initial_stddev,
        seed: int,
        dtype: str,
        name: str = "class_capsules",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.children, self.transforms, self.parents, self.pose, self.routing = (
            children,
            transforms,
            parents,
            pose,
            config,
        )
        self.rank, self.rows, self.coordinates, self.initial_stddev = rank, rows, coordinates, initial_stddev
        self.seed = seed
        self._convert_input_args = False  # Keras would round activations to half precision

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        child_pose = int(input_shape[-1] or 0)
        sizes = LayerSizes(self.children, self.transforms, self.parents, child_pose, self.pose, self.rows)
        stddev = self._transform_stddev(sizes)
        self.projection_TPK = None
        if self.rank:  # keeps a pose's expected length, so that votes start as long as with a full transform
            self.projection_TPK = self.add_weight(
                name="projection",
                shape=(self.transforms, sizes.child_pose, self.rank),
                initializer=truncated_normal(self.rank**-0.5, self.seed, f"{self.name}/projection"),
            )
            sizes = projected(sizes, self.rank)
        initializer = keras.initializers.TruncatedNormal(stddev=stddev, seed=layer_seed(self.seed, self.name))
        drawn_TPJQ = initializer(sizes.transform_shape, self.variable_dtype)
        rows = parts.rows(sizes)
        self.transform_parts = [
            self.add_weight(
                name=parts.name("transform", number, len(rows)),
                shape=part_TPJQ.shape,
                initializer=lambda shape, dtype, values=part_TPJQ: values,
            )
            for number, part_TPJQ in enumerate(tf.split(drawn_TPJQ, rows))
        ]
        self.sizes = located(sizes) if self.coordinates else sizes
        self.extra = {
            name: self._weight(name, spec)
            for name, spec in routing.get(self.routing.algorithm).weights(self.routing, self.sizes).items()
        }

    def _transform_stddev(self, sizes: LayerSizes) -> float:
        return parents_stddev(sizes) / TRUNCATED if self.initial_stddev is None else self.initial_stddev

    def _weight(self, name: str, spec: WeightSpec) -> keras.Variable | np.ndarray:
        initializer = keras.initializers.TruncatedNormal(
            spec.initial, spec.stddev, seed=layer_seed(self.seed, f"{self.name}/{name}")
        )
        if not spec.trainable:  # a constant of the graph: Keras neither counts nor saves it
            drawn: np.ndarray = initializer(spec.shape, dtype=self.variable_dtype).numpy()
            return drawn
        return self.add_weight(name=name, shape=spec.shape, initializer=initializer, autocast=False)

    def seen(self, children: Capsules) -> Capsules:
        """Children as the routing algorithm gets them: the layer's own, or window by window as further records."""
        return children

    def projected(self, poses_BIP: tf.Tensor) -> tuple[tf.Tensor, Transform]:
        """Poses and transform as the routing algorithm sees them."""
        if self.projection_TPK is not None:
            poses_BIP = project(poses_BIP, tf.convert_to_tensor(self.projection_TPK))
        parts_TPJQ = tuple(of_matrices(tf.convert_to_tensor(part), self.rows) for part in self.transform_parts)
        if self.coordinates:
            poses_BIP = with_coordinates(poses_BIP, self.coordinates)
            parts_TPJQ = tuple(onto_coordinates(part, self.rows) for part in parts_TPJQ)
        return poses_BIP, Transform(parts_TPJQ)

    def implementation(self, batch: int) -> str | None:
        """Which implementation of its routing a batch of this size gets, and why; None where there is but one."""
        if self.routing.algorithm not in STREAMED and not self.routing.needs_votes:
            return None
        found = choose(self.routing, self.sizes, batch, gpu=on_gpu())
        return f"{found.implementation}: {found.why}"

    def call(
        self,
        children: Capsules,
        *,
        trace: bool = False,
        coupling_records: int = 0,
        start: Capsules | None = None,
        config: RoutingConfig | None = None,
    ) -> tuple[Capsules, RoutingTrace | None]:
        """``start`` are parents to begin with, where the algorithm can; ``config`` replaces the layer's own."""
        poses_BIP, transform = self.projected(tf.cast(children.poses_BNP, self.compute_dtype))
        config = config or self.routing
        found: tuple[Capsules, RoutingTrace | None] = routing.get(config.algorithm).route(
            Capsules(poses_BIP, children.activations_BN),
            transform,
            {name: tf.convert_to_tensor(weight) for name, weight in self.extra.items()},
            config,
            trace=trace,
            coupling_records=coupling_records,
            **({} if start is None else {"start_BJQ": start.poses_BNP}),
        )
        parents, traced = found  # the trace's children are the layer's own, not as they are projected or placed
        return parents, None if traced is None else traced._replace(children=children)


def project(poses_BIP: tf.Tensor, projection_TPK: tf.Tensor) -> tf.Tensor:
    """Each pose times the projection of its type, A_t u: [B, I, P] -> [B, I, K] with I = N x T, types fastest."""
    transforms, pose, rank = projection_TPK.shape
    children = poses_BIP.shape[1]
    poses_BNTP = tf.reshape(poses_BIP, [-1, children // transforms, transforms, pose])
    return tf.reshape(tf.einsum("bntp,tpk->bntk", poses_BNTP, projection_TPK), [-1, children, rank])
