"""Arms that the studies of learning share, each with the learning rate that the study ``rates`` found for it."""

from trainer.probe.study import Arm

RATES = {"dynamic": "0.01", "sharp": "0.01", "convolutions": "0.005", "uniform": "0.02", "random": "0.01"}
"""Best training accuracy of ``docs/probes/rates``, at the centre and with a seed of its own."""
SHARP = "0.1"
"""Of a temperature: agreement counts ten times as much."""

ROUTINGS = {
    "dynamic": {"model.routing.algorithm": "dynamic"},
    "sharp": {"model.routing.algorithm": "dynamic", "model.routing.temperature": SHARP},
    "convolutions": {"model.head.kind": "conv_parameters"},
    "uniform": {"model.routing.algorithm": "uniform"},
    "random": {"model.routing.algorithm": "random"},
}
CONTROLS = ("convolutions", "uniform", "random")


def arms(*, tuned: bool) -> tuple[Arm, ...]:
    """Dynamic routing in the manner of the paper, and with sharper couplings; controls. Its first iteration alone is
    uniform routing, so that there is no arm for it."""
    return tuple(
        Arm(name, {**fields, **({"optimizer.learning_rate": RATES[name]} if tuned else {})}, name in CONTROLS)
        for name, fields in ROUTINGS.items()
    )
