"""Self-routing (Hahn, Pyeon, Kim 2019, section 3).

Axes: B batch, N positions, T transforms, I children = N x T (types fastest), J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from keras import ops

from trainer.export.routing.seen import Seen, weighted_sum, with_bias
from trainer.model.routing import Capsules
from trainer.model.routing.self_routing import SMALLEST


def route(seen: Seen) -> Capsules:
    """Couplings from each child alone; poses are means of votes, activations shares of the children's."""
    children, pose = seen.poses_BIP.shape[1:]
    parents = seen.votes_BIJQ.shape[2]
    poses_BNTP = ops.reshape(seen.poses_BIP, (-1, children // seen.transforms, seen.transforms, pose))
    logits_BNTJ = ops.einsum("bntp,tpj->bntj", poses_BNTP, seen.extra["route"][0])  # W_i^route u_i
    logits_BIJ = ops.reshape(logits_BNTJ, (-1, children, parents))
    outcomes_BIJ = ops.pad(logits_BIJ, ((0, 0), (0, 0), (0, 1))) if seen.config.leaky else logits_BIJ
    log_coupling_BIJ = ops.log_softmax(outcomes_BIJ, axis=-1)[..., :parents]

    activations_BI1 = ops.maximum(seen.activations_BI, SMALLEST)[..., None]
    # a_j = sum_i c_ij a_i / sum_i a_i
    activations_BJ = ops.sum(ops.exp(log_coupling_BIJ) * activations_BI1, axis=1) / ops.sum(activations_BI1, axis=1)
    # u_j = sum_i c_ij a_i u_hat(j|i) / sum_i c_ij a_i, whose weights are a softmax over children of the logarithms
    weight_BIJ = ops.softmax(log_coupling_BIJ + ops.log(activations_BI1), axis=1)
    return Capsules(with_bias(weighted_sum(weight_BIJ, seen.votes_BIJQ), seen), activations_BJ)
