"""The learning rate of each arm of ``learning``: the same rates are tried for all, at its centre, with another seed.

What counts is training accuracy, so that the test images decide nothing.
"""

from trainer.probe.studies.arms import arms
from trainer.probe.studies.learning import CENTRE
from trainer.probe.study import Budget, Study, over

STUDY = Study(
    name="rates",
    about="training accuracy over the learning rate, for each arm of the study learning",
    measure="learning",
    recipe="quick",
    fields=CENTRE,
    budget=Budget(seconds=600, memory_mib=5000),
    arms=arms(tuned=False),
    axes=(over("learning rate", "optimizer.learning_rate", ("0.001", "0.0025", "0.005", "0.01", "0.02")),),
    seeds=(100,),
)
