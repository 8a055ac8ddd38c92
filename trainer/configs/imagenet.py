"""ImageNet-shaped: 128x128 colour images, 1,000 classes, a residual stem, transforms shared over positions.

Command:  capsnet train imagenet --data.uri gs://BUCKET/imagenet
Hardware: eight GPUs
Time:     not measured here
Score:    not measured here

15.5 M parameters, of which 8.2 M are the transform [32, 16, 1000, 16]; a full one would have 131 M. Softmax over
the lengths in place of the margin loss, whose 999 absent classes outweigh the one that is present. With so many
parents dynamic routing starts out nearly uniform and its lengths nearly 0: not a recipe for accuracy yet.
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import NOT_MEASURED, Claim

CLAIM = Claim(hardware="eight GPUs", time=NOT_MEASURED, score=NOT_MEASURED)


def config() -> c.RunConfig:
    return c.RunConfig(
        model=c.ModelConfig(
            image_size=128,
            channels=3,
            classes=1000,
            stem=c.StemConfig(kind="residual", channels=(64, 128, 256, 512), strides=(2, 2, 2, 2), blocks=1),
            primary=c.PrimaryConfig(types=32, pose=16, kernel=3, stride=2, padding="same"),
            routing=c.RoutingConfig(algorithm="dynamic", iterations=3),
            head=c.HeadConfig(pose=16, transform="shared"),
            decoder=c.DecoderConfig(hidden=()),
        ),
        loss=c.LossConfig(kind="cross_entropy", scale=20.0),
        optimizer=c.OptimizerConfig(
            kind="adam",
            learning_rate=0.001,
            schedule="cosine",
            warmup_steps=5000,
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        data=c.DataConfig(
            uri="data/imagenet",
            test_split="val",
            shuffle_window=4096,
            augment=c.AugmentConfig(resize="random_resized_crop", flip=True),
        ),
        train=c.TrainConfig(epochs=90, global_batch_size=256, precision="bfloat16"),
    )
