"""The stem's convolutions. Axes: B batch, H W grid, C channels."""

from __future__ import annotations

import keras
from keras import KerasTensor, ops

from trainer.export.copies import Copies
from trainer.model.stem import Chain, ResidualBlock


def features(copies: Copies, stem: Chain, images_BHWC: KerasTensor) -> KerasTensor:
    """[B, H, W, C] -> [B, H', W', C']"""
    features_BHWC = images_BHWC
    for layer in stem.layers:
        if isinstance(layer, ResidualBlock):
            features_BHWC = _block(copies, layer, features_BHWC)
        elif isinstance(layer, keras.layers.Activation):
            features_BHWC = ops.relu(features_BHWC)
        else:
            features_BHWC = copies.layer(layer)(features_BHWC)
    return features_BHWC


def _block(copies: Copies, block: ResidualBlock, features_BHWC: KerasTensor) -> KerasTensor:
    """x + conv(relu(norm(conv(relu(norm(x))))))"""
    active_BHWC = ops.relu(copies.layer(block.norm_0)(features_BHWC))
    if block.shortcut is not None:
        features_BHWC = copies.layer(block.shortcut)(active_BHWC[:, :: block.stride, :: block.stride])
    inner_BHWC = copies.layer(block.conv_0)(active_BHWC)
    inner_BHWC = ops.relu(copies.layer(block.norm_1)(inner_BHWC))
    return features_BHWC + copies.layer(block.conv_1)(inner_BHWC)
