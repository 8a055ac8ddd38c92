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


KNOWN = {"dynamic": dynamic, "uniform": uniform, "random": random}


def parameters(config: RoutingConfig, sizes: LayerSizes) -> int:
    """How many numbers an algorithm learns besides the transform."""
    weights = KNOWN.get(config.algorithm) or routing.get(config.algorithm).weights
    return sum(math.prod(spec.shape) for spec in weights(config, sizes).values() if spec.trainable)
