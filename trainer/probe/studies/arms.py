"""Arms that the studies of learning share, each with the learning rate that a study of rates found for it."""

from collections.abc import Mapping

from trainer.probe.study import Arm, Changes

RATES = {"dynamic": "0.01", "sharp": "0.01", "convolutions": "0.005", "uniform": "0.02", "random": "0.01"}
"""Best training accuracy of ``docs/probes/rates``, at the centre and with a seed of its own."""
DEEP_RATES = {
    "dynamic": "0.01",
    "last gradient": "0.03",
    "bias": "0.01",
    "cosine": "0.01",
    "inverted": "0.01",
    "uniform": "0.01",
}
"""Best training accuracy of ``docs/probes/rates_deep``, at 8 capsule layers and with a seed of its own."""
TRANSFORM_RATES = {"full": "0.01", "shared": "0.02", "low rank": "0.01", "uniform, shared": "0.02"}
"""Best training accuracy of ``docs/probes/rates_transforms``, at the centre and with a seed of its own."""
SHARP = "0.1"
"""Of a temperature: agreement counts ten times as much."""

DYNAMIC = {"model.routing.algorithm": "dynamic"}
ROUTINGS = {
    "dynamic": DYNAMIC,
    "sharp": {**DYNAMIC, "model.routing.temperature": SHARP},
    "convolutions": {"model.head.kind": "conv_parameters"},
    "uniform": {"model.routing.algorithm": "uniform"},
    "random": {"model.routing.algorithm": "random"},
}
CONTROLS = ("convolutions", "uniform", "random", "uniform, shared")

REMEDIES = {
    "dynamic": DYNAMIC,
    "last gradient": {**DYNAMIC, "model.routing.stop_gradient": "true"},
    "bias": {**DYNAMIC, "model.routing.bias": "true"},
    "cosine": {**DYNAMIC, "model.routing.agreement": "cosine"},
    "inverted": {"model.routing.algorithm": "inverted"},
    "uniform": {"model.routing.algorithm": "uniform"},
}
"""What might save dynamic routing in a deep stack, another routing, and the control that learns there."""

SHARED_TRANSFORM = {"model.head.transform": "shared"}
TRANSFORMS = {
    "full": DYNAMIC,
    "shared": {**DYNAMIC, **SHARED_TRANSFORM},
    "low rank": {**DYNAMIC, "model.head.transform": "low_rank", "model.head.rank": "8"},
    "uniform, shared": {"model.routing.algorithm": "uniform", **SHARED_TRANSFORM},
}
"""A transform for each child and parent; one for each type of children, which thereby do not say where they are; one
that is factorised too, with as many numbers between as a child's pose has; and a control. (Coordinates added to votes
are the same for all parents: with them lengths are 0.99 from the start, and the one run made stayed at chance.)
"""


def arms(*, tuned: bool) -> tuple[Arm, ...]:
    """Dynamic routing in the manner of the paper, and with sharper couplings; controls. Its first iteration alone is
    uniform routing, so that there is no arm for it."""
    return _arms(ROUTINGS, RATES if tuned else {})


def remedies(rates: Mapping[str, str]) -> tuple[Arm, ...]:
    """``REMEDIES``, with a learning rate for each, or with the recipe's."""
    return _arms(REMEDIES, rates)


def transforms(rates: Mapping[str, str]) -> tuple[Arm, ...]:
    """``TRANSFORMS``, with a learning rate for each, or with the recipe's."""
    return _arms(TRANSFORMS, rates)


def _arms(named: Mapping[str, Changes], rates: Mapping[str, str]) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            name,
            {**fields, **({"optimizer.learning_rate": rates[name]} if name in rates else {})},
            name in CONTROLS,
        )
        for name, fields in named.items()
    )
