"""Convolutional capsule layers: transforms are shared over positions (Hinton, Sabour, Frosst 2018, section 4).

Axes: B batch, H W child grid, N positions of a grid, K kernel offsets, I children of a window = K x K x child types,
J parent types, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model import residual, routing
from trainer.model.capsules import CapsuleLayer
from trainer.model.initial import TRUNCATED, stacked_stddev
from trainer.model.routing import Capsules, LayerSizes, Transform
from trainer.model.routing.fan import Fan, cut_windows
from trainer.model.routing.trace import RoutingTrace


class ConvolutionalCapsules(CapsuleLayer):
    """Children on a grid to parents on a grid: Capsules -> (Capsules, trace or None), types fastest in both.

    Each parent sees the children of a window. To the routing algorithm, windows are further records: its batch is
    B x windows. Which couplings of different windows belong to one child stands in ``Transform.fan``.
    """

    fan: Fan

    def __init__(
        self,
        types: int,
        pose: int,
        config: RoutingConfig,
        *,
        child_types: int,
        rows: int = 1,
        fan: Fan,
        residual: bool,
        seed: int,
        dtype: str,
        name: str,
    ) -> None:
        children = fan.kernel**2 * child_types
        super().__init__(
            types, pose, config, children=children, transforms=children, rows=rows, seed=seed, dtype=dtype, name=name
        )
        self.fan, self.residual = fan, residual

    def _transform_stddev(self, sizes: LayerSizes) -> float:
        by_length = routing.get(self.routing.algorithm).ACTIVATED_BY_LENGTH
        return stacked_stddev(sizes, by_length=by_length) / TRUNCATED

    def seen(self, children: Capsules) -> Capsules:
        activations_BN1 = children.activations_BN[..., tf.newaxis]
        return Capsules(self._windows(children.poses_BNP), self._windows(activations_BN1)[..., 0])

    def implementation(self, batch: int) -> str | None:
        return super().implementation(batch * self.fan.windows**2)

    def projected(self, poses_BIP: tf.Tensor) -> tuple[tf.Tensor, Transform]:
        poses_BIP, transform = super().projected(poses_BIP)
        return poses_BIP, transform._replace(fan=self.fan)

    def call(
        self,
        children: Capsules,
        *,
        trace: bool = False,
        coupling_records: int = 0,
        start: Capsules | None = None,
        config: RoutingConfig | None = None,
    ) -> tuple[Capsules, RoutingTrace | None]:
        """The trace has the couplings [R, records, windows x I, J], window by window; the rest is by capsule."""
        windows = self.fan.windows**2
        if start is not None:
            start = start._replace(poses_BNP=tf.reshape(start.poses_BNP, [-1, self.parents, self.pose]))
        parents, traced = super().call(
            self.seen(children), trace=trace, coupling_records=coupling_records * windows, start=start, config=config
        )
        found = Capsules(
            tf.reshape(parents.poses_BNP, [-1, windows * self.parents, self.pose]),
            tf.reshape(parents.activations_BN, [-1, windows * self.parents]),
        )
        if self.residual:
            by_length = routing.get(self.routing.algorithm).ACTIVATED_BY_LENGTH
            found = residual.add(children, found, by_length=by_length)
        if traced is None:
            return found, None
        iterations = traced.coupling_RNIJ.shape[0]
        return found, traced._replace(
            children=children,
            parents=found,
            coupling_RNIJ=tf.reshape(traced.coupling_RNIJ, [iterations, -1, windows * self.children, self.parents]),
        )

    def _windows(self, grid_BNX: tf.Tensor) -> tf.Tensor:
        """[B, H x W x T, X] -> [B x windows, I, X]."""
        side, size = self.fan.side, grid_BNX.shape[-1]
        types = grid_BNX.shape[1] // side**2
        cut = cut_windows(tf.reshape(grid_BNX, [-1, side, side, types * size]), self.fan)
        return tf.reshape(cut, [-1, self.children, size])
