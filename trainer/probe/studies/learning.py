"""What is learned with routing and without it, and how routing fares meanwhile: two epochs of the embedded images."""

from trainer.probe.studies.arms import arms
from trainer.probe.studies.axes import depth, equal_parameters, grain, resampled
from trainer.probe.study import Budget, Study

CENTRE = {
    "train.epochs": "2",
    "train.threads": "1",
    "log.every_steps": "20",
    "log.observe_every_steps": "50",
    "evaluate.every_epochs": "0",
    "model.head.initial_scale": "parents",
    "model.routing.memory_bytes": "256MiB",
}
CAPSULES = ("dynamic", "sharp", "uniform")

STUDY = Study(
    name="learning",
    about="test accuracy and the health of routing after two epochs of the embedded images, three seeds",
    measure="learning",
    recipe="quick",
    fields=CENTRE,
    budget=Budget(seconds=600, memory_mib=5000),
    arms=arms(tuned=True),
    axes=(
        grain("parents", (1, 10, 30)),
        depth("depth", (1, 4, 16), window=1, arms=CAPSULES),
        depth("depth, residual", (1, 4, 16), window=1, residual=True, arms=CAPSULES),
        equal_parameters("children at equal parameters", (4, 16, 64)),
        resampled("image size", (14, 28, 56)),
    ),
    seeds=(0, 1, 2),
)
