"""Capsule layers of the Keras model, from the network's own.

Axes: B batch, N positions, T transforms, I children = N x T (types fastest), J parents, P/Q child/parent pose size
(of matrices: of R rows), K rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from trainer.config import PrimaryConfig, RoutingConfig
from trainer.export import routing, windows
from trainer.export.copies import Copies
from trainer.export.poses import layer_norm, lengths, squash, squash_exponential, unsquash
from trainer.export.routing.seen import Seen
from trainer.model import routing as network_routing
from trainer.model.capsules import CapsuleLayer, PrimaryCapsules
from trainer.model.convolution import ConvolutionalCapsules
from trainer.model.routing import Capsules
from trainer.model.transforms import onto_coordinates, with_coordinates


def primary(copies: Copies, layer: PrimaryCapsules, config: PrimaryConfig, features_BHWC: KerasTensor) -> Capsules:
    """Feature maps, cut into poses."""
    grid_BHWC = copies.layer(layer.conv)(features_BHWC)
    poses_BIP = ops.reshape(grid_BHWC, (-1, math.prod(grid_BHWC.shape[1:]) // layer.pose, layer.pose))
    if config.nonlinearity == "squash":
        poses_BIP = squash(poses_BIP)
    elif config.nonlinearity == "squash_exponential":
        poses_BIP = squash_exponential(poses_BIP)
    elif config.nonlinearity == "layer_norm":
        gain_1P, shift_1P = (copies.tensor(weight.path, weight) for weight in (layer.gain, layer.shift))
        poses_BIP = layer_norm(poses_BIP) * gain_1P + shift_1P
    if layer.activation_conv is None:
        return Capsules(poses_BIP, lengths(poses_BIP))
    activations_BHWT = ops.sigmoid(copies.layer(layer.activation_conv)(features_BHWC))
    return Capsules(poses_BIP, ops.reshape(activations_BHWT, (-1, poses_BIP.shape[1])))


@dataclass(frozen=True)
class Layer:
    """A capsule layer of the network, and its weights in the Keras model."""

    original: CapsuleLayer
    project: keras.layers.Layer | None
    transform: keras.layers.Layer
    extra: Mapping[str, KerasTensor]  # each [1, ...]


def copied(copies: Copies, layer: CapsuleLayer) -> Layer:
    """Makes the products and weights of a layer, once, however often it is routed."""
    project = None
    if layer.projection_TPK is not None:
        types, pose, rank = layer.projection_TPK.shape
        of_type = (layer.children // types, types)
        project = copies.product(
            layer.projection_TPK.path,
            "bntp,tpk->bntk",
            (None, *of_type, pose),
            (*of_type, rank),
            [layer.projection_TPK],
        )
    transforms = layer.sizes.transforms
    shared = (layer.children // transforms, transforms)
    _, row, parents, column = layer.transform_parts[0].shape
    transform = copies.product(
        f"{layer.path}/transform",
        "bntrp,tpjq->bntjrq",
        (None, *shared, layer.rows, row),
        (*shared, parents, layer.rows, column),
        layer.transform_parts,
    )
    extra = {name: copies.tensor(f"{layer.path}/{name}", weight) for name, weight in layer.extra.items()}
    return Layer(layer, project, transform, extra)


def route(
    layer: Layer, children: Capsules, start: Capsules | None = None, config: RoutingConfig | None = None
) -> Capsules:
    """Children to parents; ``start`` and ``config`` as of ``CapsuleLayer.call``."""
    original, config = layer.original, config or layer.original.routing
    if not isinstance(original, ConvolutionalCapsules):
        return _route(layer, children, start, config)
    fan, count = original.fan, original.fan.windows**2 * original.parents
    seen = Capsules(windows.cut(children.poses_BNP, fan), windows.cut(children.activations_BN[..., None], fan)[..., 0])
    if start is not None:
        start = start._replace(poses_BNP=ops.reshape(start.poses_BNP, (-1, original.parents, original.pose)))
    parents = _route(layer, seen, start, config)
    found = Capsules(
        ops.reshape(parents.poses_BNP, (-1, count, original.pose)), ops.reshape(parents.activations_BN, (-1, count))
    )
    return _with_residual(original, children, found) if original.residual else found


def _route(layer: Layer, children: Capsules, start: Capsules | None, config: RoutingConfig) -> Capsules:
    original = layer.original
    poses_BIP = _projected(layer, children.poses_BNP)
    votes_BIJQ = _votes(layer, poses_BIP)
    if original.coordinates:
        where_I2, where_2Q = _coordinates(original)
        votes_BIJQ = votes_BIJQ + (where_I2 @ where_2Q)[:, None, :]
        poses_BIP = ops.concatenate([poses_BIP, ops.zeros_like(poses_BIP[..., :2]) + where_I2], axis=-1)
    seen = Seen(
        votes_BIJQ=votes_BIJQ,
        poses_BIP=poses_BIP,
        activations_BI=children.activations_BN,
        extra=layer.extra,
        config=config,
        transforms=original.sizes.transforms,
        fan=original.fan if isinstance(original, ConvolutionalCapsules) else None,
        start_BJQ=None if start is None else start.poses_BNP,
    )
    return routing.ROUTES[config.algorithm](seen)


def _projected(layer: Layer, poses_BIP: KerasTensor) -> KerasTensor:
    """A_t u of a low-rank transform."""
    if layer.project is None:
        return poses_BIP
    children, types = layer.original.children, layer.original.transforms
    poses_BNTP = ops.reshape(poses_BIP, (-1, children // types, types, poses_BIP.shape[-1]))
    return ops.reshape(layer.project(poses_BNTP), (-1, children, layer.original.rank))


def _votes(layer: Layer, poses_BIP: KerasTensor) -> KerasTensor:
    """u_hat(j|i) = W_ij u_i, or M_i W_ij of matrices: a vector is a matrix of one row."""
    original, transforms, rows = layer.original, layer.original.sizes.transforms, layer.original.rows
    positions, row = original.children // transforms, poses_BIP.shape[-1] // rows
    votes_BNTJRQ = layer.transform(ops.reshape(poses_BIP, (-1, positions, transforms, rows, row)))
    return ops.reshape(votes_BNTJRQ, (-1, original.children, original.parents, original.pose))


def _coordinates(layer: CapsuleLayer) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each child [I, 2], and to which numbers of a vote they are added [2, Q]."""
    pose_and_where = with_coordinates(tf.zeros([1, layer.children, 1]), layer.coordinates)
    transform_and_where = onto_coordinates(tf.zeros([1, 1, 1, layer.pose]), layer.rows)
    return pose_and_where[0, :, 1:].numpy(), transform_and_where[0, 1:, 0].numpy()


def _with_residual(layer: CapsuleLayer, inputs: Capsules, routed: Capsules) -> Capsules:
    """See ``model/residual.add``."""
    if network_routing.get(layer.routing.algorithm).ACTIVATED_BY_LENGTH:
        poses_BNP = squash(unsquash(inputs.poses_BNP) + unsquash(routed.poses_BNP))
        return Capsules(poses_BNP, lengths(poses_BNP))
    return Capsules(inputs.poses_BNP + routed.poses_BNP, 0.5 * (inputs.activations_BN + routed.activations_BN))
