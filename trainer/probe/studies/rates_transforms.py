"""The learning rate of each arm of ``learning_transforms``: that of ``rates``, for these arms."""

import dataclasses

from trainer.probe.studies import rates
from trainer.probe.studies.arms import transforms

STUDY = dataclasses.replace(
    rates.STUDY,
    name="rates_transforms",
    about="training accuracy over the learning rate, for each arm of the study learning_transforms",
    arms=transforms({}),
)
