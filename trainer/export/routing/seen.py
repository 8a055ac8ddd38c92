"""What a routing algorithm sees, and the pieces that several of them share.

Axes: B batch (records, or records x windows), I children, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from keras import KerasTensor, ops

from trainer.config import RoutingConfig
from trainer.model.routing.fan import Fan


class Seen(NamedTuple):
    """Children and their votes."""

    votes_BIJQ: KerasTensor
    poses_BIP: KerasTensor
    activations_BI: KerasTensor
    extra: Mapping[str, KerasTensor]  # weights besides the transform, each [1, ...]
    config: RoutingConfig
    transforms: int  # T; child i has the transform i mod T
    fan: Fan | None  # of a convolutional layer
    start_BJQ: KerasTensor | None  # parents before the first iteration (inverted)


def couplings(routing_logits_BIJ: KerasTensor, leaky: bool) -> KerasTensor:
    """c_ij = softmax over parents (Sabour et al. 2017, equation 3), one of them 'none of the above' with ``leaky``."""
    if not leaky:
        return ops.softmax(routing_logits_BIJ, axis=-1)
    return ops.softmax(ops.pad(routing_logits_BIJ, ((0, 0), (0, 0), (1, 0))), axis=-1)[..., 1:]


def weighted_sum(coupling_BIJ: KerasTensor, votes_BIJQ: KerasTensor) -> KerasTensor:
    """s_j = sum_i c_ij u_hat(j|i) (equation 2)."""
    return ops.einsum("bij,bijq->bjq", coupling_BIJ, votes_BIJQ)


def uniform_sum(seen: Seen) -> KerasTensor:
    """The same while every outcome has the same share."""
    parents = seen.votes_BIJQ.shape[2]
    return ops.sum(seen.votes_BIJQ, axis=1) / (parents + seen.config.leaky)


def with_bias(values_BJQ: KerasTensor, seen: Seen) -> KerasTensor:
    """Plus the learned bias of each parent, if there is one."""
    return values_BJQ + seen.extra["bias"] if "bias" in seen.extra else values_BJQ
