"""Routing algorithms in Keras operations, one a file: what ``model/routing`` does, with all votes in memory.

Axes: B batch, I children, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

from collections.abc import Callable

from trainer.export.routing import controls, dynamic, em, inverted, self_attention, self_routing
from trainer.export.routing.seen import Seen
from trainer.model.routing import Capsules

ROUTES: dict[str, Callable[[Seen], Capsules]] = {
    "dynamic": dynamic.route,
    "em": em.route,
    "inverted": inverted.route,
    "self_routing": self_routing.route,
    "self_attention": self_attention.route,
    "uniform": controls.uniform,
    "random": controls.random,
}
"""By the name that they have in ``RoutingConfig.algorithm``."""
