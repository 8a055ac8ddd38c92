"""What stands beside capsules: the control's convolutional head, and the decoder.

Axes: B batch, H W grid, C channels, J classes, Q numbers of a class, X numbers of a record.
"""

from __future__ import annotations

import math

from keras import KerasTensor, ops

from trainer.export.copies import Copies
from trainer.model.control import ConvolutionalHead
from trainer.model.decoder import Decoder
from trainer.model.routing import Capsules


def control(copies: Copies, head: ConvolutionalHead, features_BHWC: KerasTensor) -> Capsules:
    """See ``model/control.ConvolutionalHead``."""
    grid_BHWC = copies.layer(head.conv)(features_BHWC)
    if head.mean:
        seen_BX = ops.mean(grid_BHWC, axis=(1, 2))
    else:
        seen_BX = ops.reshape(grid_BHWC, (-1, math.prod(grid_BHWC.shape[1:])))
    scores_BJ = copies.layer(head.scores)(seen_BX)
    if not head.linear:
        scores_BJ = ops.sigmoid(scores_BJ)
    if head.features is None:
        return Capsules(scores_BJ[..., None], scores_BJ)
    return Capsules(ops.reshape(copies.layer(head.features)(seen_BX), (-1, head.parents, head.pose)), scores_BJ)


def reconstruction(copies: Copies, decoder: Decoder, poses_BJQ: KerasTensor, class_B: KerasTensor) -> KerasTensor:
    """[B, H, W, C] in 0..1 from one capsule of each record: see ``model/decoder.Decoder``."""
    _, classes, pose = poses_BJQ.shape
    features_BX = ops.reshape(poses_BJQ * ops.one_hot(class_B, classes)[..., None], (-1, classes * pose))
    for layer in decoder.hidden:
        features_BX = copies.layer(layer)(features_BX)
    return ops.reshape(ops.sigmoid(copies.layer(decoder.pixels)(features_BX)), (-1, *decoder.image_shape))
