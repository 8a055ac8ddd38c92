"""Self-attention routing (Mazzia et al. 2021, section 3). Axes: B batch, I children, J parents, Q pose size."""

from __future__ import annotations

import math

from keras import ops

from trainer.export.poses import lengths, squash_exponential
from trainer.export.routing.seen import Seen, couplings, weighted_sum, with_bias
from trainer.model.routing import Capsules


def route(seen: Seen) -> Capsules:
    """s = U^T (C + B), with C the softmax over parents of a vote's product with the sum of all votes."""
    votes_BIJQ = seen.votes_BIJQ
    attention_BIJ = ops.einsum("bijq,bjq->bij", votes_BIJQ, ops.sum(votes_BIJQ, axis=1))
    coupling_BIJ = couplings(attention_BIJ / math.sqrt(votes_BIJQ.shape[-1]), seen.config.leaky) + seen.extra["prior"]
    poses_BJQ = squash_exponential(with_bias(weighted_sum(coupling_BIJ, votes_BIJQ), seen))
    return Capsules(poses_BJQ, lengths(poses_BJQ))
