"""Three minutes on two cores: what is learned in one epoch of the embedded images, at two numbers of parents."""

from trainer.probe.studies.arms import arms
from trainer.probe.studies.axes import grain
from trainer.probe.studies.learning import CENTRE
from trainer.probe.study import Budget, Study

STUDY = Study(
    name="smoke_learning",
    about="test accuracy and the health of routing after one epoch of the embedded images",
    measure="learning",
    recipe="quick",
    fields={**CENTRE, "train.epochs": "1", "train.threads": "2", "log.observe_every_steps": "30"},
    budget=Budget(seconds=120, memory_mib=4000),
    arms=tuple(arm for arm in arms(tuned=True) if arm.name in ("dynamic", "uniform")),
    axes=(grain("parents", (1, 10)),),
    seeds=(0, 1),
)
