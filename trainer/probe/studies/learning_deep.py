"""What mends routing in depth: each remedy by itself in the stack where dynamic routing fails, at its own best rate."""

import dataclasses

from trainer.probe.studies import rates_deep
from trainer.probe.studies.arms import DEEP_RATES, remedies
from trainer.probe.study import Axis

RESIDUAL = {number: {"model.layers.residual": value} for number, value in (("0", "false"), ("1", "true"))}

STUDY = dataclasses.replace(
    rates_deep.STUDY,
    name="learning_deep",
    about="what mends routing in depth: test accuracy and the health of routing in 8 capsule layers, three seeds",
    arms=remedies(DEEP_RATES),
    axes=(
        rates_deep.AXIS,
        Axis("residual connections, 0 or 1", RESIDUAL, ("dynamic", "cosine", "uniform")),
    ),
    seeds=(0, 1, 2),
)
