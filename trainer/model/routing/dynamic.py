"""Dynamic routing (Sabour, Frosst, Hinton 2017, "Dynamic Routing Between Capsules", procedure 1).

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations, N observed records.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, Transform
from trainer.model.routing.agreement import Rule, pose_and_said
from trainer.model.routing.choice import choose_for
from trainer.model.routing.extra import dynamic as weights
from trainer.model.routing.stored import stored
from trainer.model.routing.streamed import streamed
from trainer.model.routing.trace import RoutingTrace, collect
from trainer.model.squash import lengths

__all__ = ["route", "weights"]

ACTIVATED_BY_LENGTH = True


def route(
    children: Capsules,
    transform: Transform,
    extra: Mapping[str, tf.Tensor],
    config: RoutingConfig,
    *,
    trace: bool = False,
    coupling_records: int = 0,
) -> tuple[Capsules, RoutingTrace | None]:
    """Parents by R iterations of routing by agreement; activations are lengths.

    Votes are a product in the dtype of the arguments, all else is in at least float32. In a convolutional layer the
    parents of one window compete for a child, as usual with this algorithm, not those of all windows that it is in.

    Args:
        extra: what ``weights`` names.
        trace: also return what the couplings did; ``coupling_records`` of their records as they are.
    Returns:
        (parents, trace or None)
    """
    choice = choose_for(config, children.poses_BNP, transform)
    rule, records = Rule.of(config, transform.fan), coupling_records if trace else None
    bias = [extra["bias"]] if "bias" in extra else []
    if choice.implementation == "stored":
        poses_BJQ, steps = stored(children.poses_BNP, transform, bias, rule, xla=config.xla, records=records)
    else:
        poses_BJQ, steps = streamed(
            children.poses_BNP, transform, bias, pose_and_said, rule, choice, xla=config.xla, records=records
        )
    parents = Capsules(poses_BJQ, lengths(poses_BJQ))
    return parents, collect(steps, children, parents) if trace else None
