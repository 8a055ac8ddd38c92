"""Self-routing (Hahn, Pyeon, Kim 2019, "Self-routing capsule networks", section 3): each child sends itself to parents
by a small network of its own, whatever the others do, as in a mixture of experts. No iterations.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.choice import choose_for
from trainer.model.routing.extra import self_routing as weights
from trainer.model.routing.fan import Fan
from trainer.model.routing.streamed import streamed_sum
from trainer.model.routing.trace import CouplingTrace, RoutingTrace, by_child, collect, observe
from trainer.model.routing.votes import child_order, vote_order, votes
from trainer.model.squash import at_least_float32

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = False

SMALLEST = 1e-12  # of an activation, far below a length of 0 (1e-6); quotients' gradients have its square, a float32


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents whose activations are shares of the children's: they sum to 1, or to less with ``leaky``.

    Arguments and result are those of ``dynamic.route``, but that poses are means of votes, of any length, and
    activations are not their lengths. ``iterations`` and ``stop_gradient`` have no meaning here.
    """
    poses_BIP = children.poses_BNP
    # W_i^route u_i, a product like that of the votes, for poses of size 1
    route_TPJQ = tf.cast(extra["route"], poses_BIP.dtype)[..., tf.newaxis]
    routing_logits_IBJ = votes(poses_BIP, Transform((route_TPJQ,)))[..., 0]
    activations_IB = vote_order(tf.transpose(children.activations_BN), transform.transforms)
    records, fan = coupling_records if trace else None, transform.fan
    choice = choose_for(config, poses_BIP, transform)
    if choice.implementation == "stored":
        mix = _mix_compiled if config.xla else _mix
        votes_IBJQ = votes(poses_BIP, transform)
        poses_BJQ, activations_BJ, step = mix(
            votes_IBJQ, routing_logits_IBJ, activations_IB, config.leaky, records, fan
        )
    else:
        share = _share_compiled if config.xla else _share
        weight_IBJ, activations_BJ, step = share(routing_logits_IBJ, activations_IB, config.leaky, records, fan)
        weight_IBJ = child_order(weight_IBJ, transform.transforms, axis=0)
        poses_BJQ = streamed_sum(poses_BIP, transform, weight_IBJ, choice, xla=config.xla)
    if "bias" in extra:
        poses_BJQ += tf.cast(extra["bias"], poses_BJQ.dtype)
    parents = Capsules(poses_BJQ, activations_BJ)
    if step is None:
        return parents, None
    return parents, collect(by_child([step], transform.transforms), children, parents)


def _mix(
    votes_IBJQ: tf.Tensor,
    routing_logits_IBJ: tf.Tensor,
    activations_IB: tf.Tensor,
    leaky: bool,
    records: int | None,
    fan: Fan | None,
) -> tuple[tf.Tensor, tf.Tensor, CouplingTrace | None]:
    weight_IBJ, activations_BJ, step = _share(routing_logits_IBJ, activations_IB, leaky, records, fan)
    poses_BJQ = tf.reduce_sum(weight_IBJ[..., tf.newaxis] * at_least_float32(votes_IBJQ), axis=0)
    return poses_BJQ, activations_BJ, step


def _share(
    routing_logits_IBJ: tf.Tensor, activations_IB: tf.Tensor, leaky: bool, records: int | None, fan: Fan | None
) -> tuple[tf.Tensor, tf.Tensor, CouplingTrace | None]:
    """(what each vote counts for its parent's pose, the parents' activations, what couplings did)."""
    logits_IBJ = at_least_float32(routing_logits_IBJ)
    activations_IB = tf.maximum(tf.cast(activations_IB, logits_IBJ.dtype), SMALLEST)
    # c_ij = softmax over parents of W_i^route u_i, as logarithms: see below
    outcomes_IBJ = tf.pad(logits_IBJ, [[0, 0], [0, 0], [0, 1]]) if leaky else logits_IBJ
    log_coupling_IBJ = tf.nn.log_softmax(outcomes_IBJ, axis=-1)[..., : logits_IBJ.shape[-1]]
    coupling_IBJ = tf.exp(log_coupling_IBJ)
    # a_j = sum_i c_ij a_i / sum_i a_i; the largest is a factor of both sums, which then neither overflow nor vanish
    share_IB = activations_IB / tf.reduce_max(activations_IB, axis=0)
    activations_BJ = tf.reduce_sum(coupling_IBJ * share_IB[..., tf.newaxis], axis=0)
    activations_BJ /= tf.reduce_sum(share_IB, axis=0)[:, tf.newaxis]
    # u_j = sum_i c_ij a_i u_hat(j|i) / sum_i c_ij a_i. The weights are a softmax over children of ln c_ij + ln a_i,
    # which is right also for a parent that no child is sent to, where both sums are 0.
    weight_IBJ = tf.nn.softmax(log_coupling_IBJ + tf.math.log(activations_IB)[..., tf.newaxis], axis=0)
    return weight_IBJ, activations_BJ, None if records is None else observe(coupling_IBJ, leaky, records, fan)


_share_compiled = tf.function(_share, jit_compile=True)
_mix_compiled = tf.function(_mix, jit_compile=True)  # without the votes, as in dynamic routing
