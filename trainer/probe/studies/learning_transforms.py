"""What transforms that children share cost and save as parents grow: that of ``learning``, over parents alone."""

import dataclasses

from trainer.probe.studies import learning
from trainer.probe.studies.arms import TRANSFORM_RATES, transforms
from trainer.probe.studies.axes import grain

STUDY = dataclasses.replace(
    learning.STUDY,
    name="learning_transforms",
    about="test accuracy with full, shared and factorised transforms over parents, three seeds",
    arms=transforms(TRANSFORM_RATES),
    axes=(grain("parents", (1, 10, 30)),),
)
