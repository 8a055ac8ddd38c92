"""Multiply-adds of routing algorithms for one record, without TensorFlow: what the algorithm is defined to compute,
however an implementation orders, repeats or saves it.

An algorithm that is not named here defines ``multiply_adds(config, sizes)`` in its own file.

Axes: I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from trainer.config import RoutingConfig
from trainer.errors import ConfigError
from trainer.model import routing
from trainer.model.routing import LayerSizes


def votes(sizes: LayerSizes) -> int:
    """Each child's transform times its pose, for each parent: I P J Q, also where children share transforms.

    A matrix is multiplied row by row: I sqrt(P) J Q.
    """
    return sizes.children * (sizes.child_pose // sizes.rows) * sizes.parents * sizes.pose


def each_vote(sizes: LayerSizes) -> int:
    """One for each number of each vote, I J Q: what a weighted sum of votes takes, and what agreement takes."""
    return sizes.children * sizes.parents * sizes.pose


def dynamic(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Votes once, a weighted sum in each of R iterations, agreement between them (procedure 1, lines 5 and 7)."""
    return votes(sizes) + (2 * config.iterations - 1) * each_vote(sizes)


def uniform(config: RoutingConfig, sizes: LayerSizes) -> int:
    """One product: poses of children that share a transform are summed before it, and there are no votes."""
    return sizes.transforms * (sizes.child_pose // sizes.rows) * sizes.parents * sizes.pose


def random(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Votes and one weighted sum."""
    return votes(sizes) + each_vote(sizes)


def inverted(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Those of dynamic routing, and the read-out; layers that iterate together make votes and read out each time."""
    once = votes(sizes) + sizes.parents * sizes.pose
    times = config.iterations if config.concurrent else 1
    return times * once + (2 * config.iterations - 1) * each_vote(sizes)


def self_routing(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Votes, routing logits, and one weighted sum."""
    return votes(sizes) + sizes.children * sizes.child_pose * sizes.parents + each_vote(sizes)


def self_attention(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Votes, agreement with their sum, and one weighted sum: of the attention only sums over children are used."""
    return votes(sizes) + 2 * each_vote(sizes)


def em(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Votes once, means and variances in each of R iterations, densities between them."""
    return votes(sizes) + (3 * config.iterations - 1) * each_vote(sizes)


KNOWN = {
    "dynamic": dynamic,
    "uniform": uniform,
    "random": random,
    "inverted": inverted,
    "self_routing": self_routing,
    "self_attention": self_attention,
    "em": em,
}


def multiply_adds(config: RoutingConfig, sizes: LayerSizes) -> int:
    """Of one capsule layer, its transform included.

    Raises:
        ConfigError: the algorithm does not say what it computes.
    """
    count = KNOWN.get(config.algorithm) or getattr(routing.get(config.algorithm), "multiply_adds", None)
    if count is None:
        raise ConfigError(
            f"routing {config.algorithm}: its cost is not known; give trainer/model/routing/{config.algorithm}.py a "
            "function multiply_adds(config, sizes)"
        )
    return int(count(config, sizes))
