"""The study of learning on CIFAR-10, as far as two cores carry it: one epoch of the same small network.

Needs the shards: ``capsnet data prepare cifar-10-binary.tar.gz data/cifar10``, and ``--data URI`` where they are
elsewhere. Parents come from quarter turns, which need no pixel from between or outside.
"""

from trainer.probe.studies.arms import arms
from trainer.probe.studies.axes import equal_parameters, grain
from trainer.probe.studies.learning import CENTRE
from trainer.probe.study import Budget, Study

STUDY = Study(
    name="learning_cifar10",
    about="test accuracy and the health of routing after one epoch of CIFAR-10, three seeds",
    measure="learning",
    recipe="quick",
    fields={
        **CENTRE,
        "train.epochs": "1",
        "data.uri": "data/cifar10",
        "model.image_size": "32",
        "model.channels": "3",
        "log.every_steps": "40",
        "log.observe_every_steps": "100",
    },
    budget=Budget(seconds=900, memory_mib=5000),
    arms=arms(tuned=True),
    axes=(grain("parents", (1, 2, 4)), equal_parameters("children at equal parameters", (4, 16, 64))),
    seeds=(0, 1, 2),
)
