"""What routing algorithms have besides the transform, without TensorFlow, so that parameters are counted before it.

An algorithm's file gives its function the name ``weights``. It may also define ``weights`` itself: its parameters
are then counted by importing it, and TensorFlow with it.

Axes: I children, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import math

from trainer.config import RoutingConfig
from trainer.model import routing
from trainer.model.routing import LayerSizes, WeightSpec

INITIAL_BIAS = 0.1  # as in the authors' code of dynamic routing


def dynamic(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """A bias for each parent, where asked for."""
    return {"bias": WeightSpec((sizes.parents, sizes.pose), INITIAL_BIAS)} if config.bias else {}


uniform = dynamic


def random(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """A logit for each child and parent that is drawn once and not learned."""
    logits = WeightSpec((sizes.children, sizes.parents), stddev=1.0, trainable=False)
    return {"routing_logits": logits, **dynamic(config, sizes)}


def inverted(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """Layer normalisation and a linear read-out, both of one pose and the same for all parents."""
    return {
        "gain": WeightSpec((sizes.pose,), 1.0),
        "shift": WeightSpec((sizes.pose,)),
        "readout": WeightSpec((sizes.pose,), stddev=1.0 / math.sqrt(sizes.pose)),
        "readout_bias": WeightSpec((1,)),
        **dynamic(config, sizes),
    }


def self_routing(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """W^route, a row of P for each transform and parent; 0, so that couplings are uniform at first."""
    return {"route": WeightSpec((sizes.transforms, sizes.child_pose, sizes.parents)), **dynamic(config, sizes)}


def self_attention(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """B, which is added to the couplings."""
    return {"prior": WeightSpec((sizes.children, sizes.parents)), **dynamic(config, sizes)}


def em(config: RoutingConfig, sizes: LayerSizes) -> dict[str, WeightSpec]:
    """beta_a and beta_u, one of each for every parent (of a convolutional layer: every parent type)."""
    return {
        "beta_activation": WeightSpec((sizes.parents,)),
        "beta_cost": WeightSpec((sizes.parents,)),
        **dynamic(config, sizes),
    }


KNOWN = {
    "dynamic": dynamic,
    "uniform": uniform,
    "random": random,
    "inverted": inverted,
    "self_routing": self_routing,
    "self_attention": self_attention,
    "em": em,
}


def parameters(config: RoutingConfig, sizes: LayerSizes) -> int:
    """How many numbers an algorithm learns besides the transform."""
    weights = KNOWN.get(config.algorithm) or routing.get(config.algorithm).weights
    return sum(math.prod(spec.shape) for spec in weights(config, sizes).values() if spec.trainable)
