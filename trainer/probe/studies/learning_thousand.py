"""The study of learning at 1,000 parents, which takes as long as all the rest of it: one seed."""

import dataclasses

from trainer.probe.studies import learning
from trainer.probe.studies.arms import TRANSFORM_RATES, transforms
from trainer.probe.studies.axes import grain
from trainer.probe.study import Budget

STUDY = dataclasses.replace(
    learning.STUDY,
    name="learning_thousand",
    about="test accuracy and the health of routing at 1,000 parents, one seed",
    budget=Budget(seconds=1800, memory_mib=5000),
    # "full" is what learning calls "dynamic"
    arms=(*learning.STUDY.arms, *(arm for arm in transforms(TRANSFORM_RATES) if arm.name != "full")),
    axes=(grain("parents", (1, 100)),),
    seeds=(0,),
)
