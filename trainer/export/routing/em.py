"""Matrix capsules with EM routing (Hinton, Sabour, Frosst 2018, procedure 1), as ``model/routing/em.py`` reads it.

Axes: B batch (records x windows in a convolutional layer), I children, J parents, Q pose size.
"""

from __future__ import annotations

from keras import KerasTensor, ops

from trainer.export.routing.seen import Seen, weighted_sum, with_bias
from trainer.export.windows import log_normaliser_over_windows
from trainer.model.routing import Capsules
from trainer.model.routing.em import SMALLEST, VARIANCE_FLOOR


def route(seen: Seen) -> Capsules:
    """Poses are means of votes, activations logistic."""
    votes_BIJQ, em = seen.votes_BIJQ, seen.config.em
    children, parents = votes_BIJQ.shape[1:3]
    parents_per_child = parents / children * (seen.fan.windows_per_child if seen.fan else 1)
    activations_BI1 = ops.maximum(seen.activations_BI, SMALLEST)[..., None]
    logits_BIJ = ops.zeros_like(votes_BIJQ[..., 0])
    for t in range(1, seen.config.iterations + 1):
        log_assignment_BIJ = _log_softmax_over_parents(logits_BIJ, seen)  # R_ij
        # M step
        data_BJ = ops.sum(ops.exp(log_assignment_BIJ) * activations_BI1, axis=1)
        share_BIJ = ops.softmax(log_assignment_BIJ + ops.log(activations_BI1), axis=1)  # R_ij a_i / sum_i R_ij a_i
        mean_BJQ = weighted_sum(share_BIJ, votes_BIJQ)
        square_BIJQ = ops.square(votes_BIJQ - mean_BJQ[:, None])
        variance_BJQ = weighted_sum(share_BIJ, square_BIJQ) + VARIANCE_FLOOR
        log_deviation_BJQ = 0.5 * ops.log(variance_BJQ)
        cost_BJ = (seen.extra["beta_cost"] + ops.mean(log_deviation_BJQ, axis=-1)) * data_BJ * parents_per_child
        inverse_temperature = em.inverse_temperature * (1.0 - em.inverse_temperature_decay**t)
        presence_BJ = inverse_temperature * (seen.extra["beta_activation"] - cost_BJ)  # a_j = logistic of it
        # E step
        if t < seen.config.iterations:
            log_density_BIJ = -0.5 * ops.sum(square_BIJQ / variance_BJQ[:, None], axis=-1)
            log_density_BIJ = log_density_BIJ - ops.sum(log_deviation_BJQ, axis=-1)[:, None]
            logits_BIJ = ops.log_sigmoid(presence_BJ)[:, None] + log_density_BIJ
    return Capsules(with_bias(mean_BJQ, seen), ops.sigmoid(presence_BJ))


def _log_softmax_over_parents(logits_BIJ: KerasTensor, seen: Seen) -> KerasTensor:
    """Over all parents that a child can reach, in all its windows; one of them 'none of the above' with ``leaky``."""
    normaliser_BI = ops.logsumexp(logits_BIJ, axis=(-1,))
    if seen.fan is not None and seen.fan.overlaps:
        normaliser_BI = log_normaliser_over_windows(normaliser_BI, seen.fan)
    if seen.config.leaky:
        normaliser_BI = ops.softplus(normaliser_BI)
    return logits_BIJ - normaliser_BI[..., None]
