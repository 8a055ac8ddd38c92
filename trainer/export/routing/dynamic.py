"""Dynamic routing (Sabour, Frosst, Hinton 2017, procedure 1). Axes: B batch, I children, J parents, Q pose size."""

from __future__ import annotations

from keras import ops

from trainer.export.poses import direction, lengths, squash
from trainer.export.routing.seen import Seen, couplings, uniform_sum, weighted_sum, with_bias
from trainer.model.routing import Capsules


def route(seen: Seen) -> Capsules:
    """Logits are products of a vote with what its parent said in all iterations before."""
    cosine = seen.config.agreement == "cosine"
    compared_BIJQ = direction(seen.votes_BIJQ) if cosine else seen.votes_BIJQ
    poses_BJQ = squash(with_bias(uniform_sum(seen), seen))  # b_ij = 0
    said_BJQ = direction(poses_BJQ) if cosine else poses_BJQ
    for _ in range(1, seen.config.iterations):
        routing_logits_BIJ = ops.einsum("bijq,bjq->bij", compared_BIJQ, said_BJQ) / seen.config.temperature
        coupling_BIJ = couplings(routing_logits_BIJ, seen.config.leaky)
        poses_BJQ = squash(with_bias(weighted_sum(coupling_BIJ, seen.votes_BIJQ), seen))
        said_BJQ = said_BJQ + (direction(poses_BJQ) if cosine else poses_BJQ)
    return Capsules(poses_BJQ, lengths(poses_BJQ))
