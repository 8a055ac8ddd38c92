"""Inverted dot-product attention (Tsai et al. 2020, procedure 1). Axes: B batch, I children, J parents, Q pose size."""

from __future__ import annotations

from keras import ops

from trainer.export.poses import layer_norm
from trainer.export.routing.seen import Seen, couplings, uniform_sum, weighted_sum, with_bias
from trainer.model.routing import Capsules


def route(seen: Seen) -> Capsules:
    """Logits are products of a vote with its parent's normalised pose; activations a linear function of that."""
    poses_BJQ = seen.start_BJQ
    for _ in range(seen.config.iterations):
        if poses_BJQ is None:  # parents are 0 at first, so that a_ij = 0
            preactivation_BJQ = uniform_sum(seen)
        else:
            attention_BIJ = ops.einsum("bijq,bjq->bij", seen.votes_BIJQ, poses_BJQ)
            preactivation_BJQ = weighted_sum(couplings(attention_BIJ, seen.config.leaky), seen.votes_BIJQ)
        normal_BJQ = layer_norm(with_bias(preactivation_BJQ, seen))
        poses_BJQ = normal_BJQ * seen.extra["gain"][:, None] + seen.extra["shift"][:, None]  # equation 4
    activations_BJ = ops.sum(poses_BJQ * seen.extra["readout"][:, None], axis=-1) + seen.extra["readout_bias"]
    return Capsules(poses_BJQ, activations_BJ)
