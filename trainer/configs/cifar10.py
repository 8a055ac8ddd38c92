"""CIFAR-10 on two CPU cores: a stem of five convolutions, 512 routed capsules, bfloat16.

Command:  capsnet train cifar10 --data.uri CIFAR10
Hardware: two CPU cores
Time:     not measured here
Score:    not measured here
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import NOT_MEASURED, Claim

CLAIM = Claim(hardware="two CPU cores", time=NOT_MEASURED, score=NOT_MEASURED)


def config() -> c.RunConfig:
    return c.RunConfig(
        model=c.ModelConfig(
            image_size=32,
            channels=3,
            classes=10,
            stem=c.StemConfig(
                kind="conv",
                channels=(64, 128, 128, 256, 256),
                strides=(1, 2, 1, 2, 1),
                kernel=3,
                padding="same",
                norm="group",
            ),
            primary=c.PrimaryConfig(types=32, pose=8, kernel=3, stride=2, padding="same"),
            routing=c.RoutingConfig(algorithm="dynamic", iterations=3),
            head=c.HeadConfig(pose=16, transform="full"),
            decoder=c.DecoderConfig(hidden=()),
        ),
        loss=c.LossConfig(kind="cross_entropy", scale=20.0, label_smoothing=0.1),
        optimizer=c.OptimizerConfig(
            kind="adam",
            learning_rate=0.003,
            schedule="cosine",
            warmup_steps=200,
            weight_decay=0.05,
            average_decay=0.99,
        ),
        data=c.DataConfig(uri="data/cifar10", augment=c.AugmentConfig(shift=4, flip=True)),
        train=c.TrainConfig(epochs=14, global_batch_size=128, precision="bfloat16"),
    )
