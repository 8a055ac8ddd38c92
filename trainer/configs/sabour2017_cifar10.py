"""The CIFAR-10 network of Sabour, Frosst and Hinton 2017 (section 7): 22.48 M parameters (22,476,288).

Command:  capsnet train sabour2017_cifar10 --data.uri DIR
Hardware: one GPU
Time:     not measured here
Score:    not measured here (the paper: 10.6 % error with an ensemble of 7)

Random 24x24 crops of 32x32 colour images, SAME padding, 64 types of 8D primary capsules (I = 12 x 12 x 64 = 9,216),
a none-of-the-above category in the softmax, no decoder; the rate falls by 0.96 every 2,000 steps.
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import NOT_MEASURED, Claim

CLAIM = Claim(hardware="one GPU", time=NOT_MEASURED, score=NOT_MEASURED)


def config() -> c.RunConfig:
    return c.RunConfig(
        model=c.ModelConfig(
            image_size=24,
            channels=3,
            classes=10,
            stem=c.StemConfig(kind="conv", channels=(256,), kernel=9, strides=(1,), padding="same"),
            primary=c.PrimaryConfig(types=64, pose=8, kernel=9, stride=2, padding="same"),
            routing=c.RoutingConfig(algorithm="dynamic", iterations=3, leaky=True),
            head=c.HeadConfig(pose=16, transform="full"),
            decoder=c.DecoderConfig(hidden=()),
        ),
        loss=c.LossConfig(kind="margin"),
        optimizer=c.OptimizerConfig(
            kind="adam", learning_rate=0.001, schedule="exponential", decay_rate=0.96, decay_epochs=(5.128,)
        ),
        data=c.DataConfig(uri="data/cifar10", augment=c.AugmentConfig(resize="crop", flip=True)),
        train=c.TrainConfig(epochs=100, global_batch_size=128),
    )
