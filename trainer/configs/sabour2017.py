"""The network of Sabour, Frosst and Hinton 2017 (section 4) for 28x28 grey images: 8,215,568 parameters.

Command:  capsnet train sabour2017
Hardware: one GPU
Time:     not measured here
Score:    not measured here

6,804,224 parameters without the decoder. Reconstruction weighs 0.0005 per squared error summed over pixels, images
are shifted by up to 2 pixels; Adam with an exponentially decaying rate as in the authors' code (0.96 every 2,000
steps, which are 4.27 epochs of 60,000 images).
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import NOT_MEASURED, Claim

CLAIM = Claim(hardware="one GPU", time=NOT_MEASURED, score=NOT_MEASURED)


def config() -> c.RunConfig:
    return c.RunConfig(
        model=c.ModelConfig(
            image_size=28,
            channels=1,
            classes=10,
            stem=c.StemConfig(kind="conv", channels=(256,), kernel=9, strides=(1,), padding="valid"),
            primary=c.PrimaryConfig(types=32, pose=8, kernel=9, stride=2, padding="valid"),
            routing=c.RoutingConfig(algorithm="dynamic", iterations=3),
            head=c.HeadConfig(pose=16, transform="full"),
            decoder=c.DecoderConfig(hidden=(512, 1024)),
        ),
        loss=c.LossConfig(kind="margin", reconstruction_weight=0.0005),
        optimizer=c.OptimizerConfig(
            kind="adam", learning_rate=0.001, schedule="exponential", decay_rate=0.96, decay_epochs=(4.266,)
        ),
        data=c.DataConfig(augment=c.AugmentConfig(shift=2)),
        train=c.TrainConfig(epochs=50, global_batch_size=128),
    )
