"""The controls without routing. Axes: B batch, I children, J parents, Q pose size."""

from __future__ import annotations

from keras import KerasTensor, ops

from trainer.export.poses import lengths, squash
from trainer.export.routing.seen import Seen, couplings, uniform_sum, with_bias
from trainer.model.routing import Capsules


def uniform(seen: Seen) -> Capsules:
    """c_ij = 1 / J"""
    return _squashed(uniform_sum(seen), seen)


def random(seen: Seen) -> Capsules:
    """c_ij = softmax over parents of b_ij that were drawn once."""
    coupling_1IJ = couplings(seen.extra["routing_logits"], seen.config.leaky)
    return _squashed(ops.einsum("ij,bijq->bjq", coupling_1IJ[0], seen.votes_BIJQ), seen)


def _squashed(preactivation_BJQ: KerasTensor, seen: Seen) -> Capsules:
    poses_BJQ = squash(with_bias(preactivation_BJQ, seen))
    return Capsules(poses_BJQ, lengths(poses_BJQ))
