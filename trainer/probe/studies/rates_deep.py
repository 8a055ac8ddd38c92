"""The learning rate of each arm of ``learning_deep``, searched where it is hard: at 8 capsule layers.

What counts is training accuracy, so that the test images decide nothing.
"""

from trainer.probe.studies.arms import remedies
from trainer.probe.studies.axes import depth
from trainer.probe.studies.learning import CENTRE
from trainer.probe.study import Budget, Study, over

LAYERS = 8
AXIS = depth("depth", (1, 4, LAYERS), window=1)

STUDY = Study(
    name="rates_deep",
    about="training accuracy over the learning rate in a stack of 8 capsule layers, for each arm of learning_deep",
    measure="learning",
    recipe="quick",
    fields={**CENTRE, **AXIS.points[str(LAYERS)], "optimizer.learning_rate": "0.003"},
    budget=Budget(seconds=600, memory_mib=5000),
    arms=remedies({}),
    axes=(over("learning rate", "optimizer.learning_rate", ("0.001", "0.003", "0.01", "0.03")),),
    seeds=(100,),
)
