"""ImageNet-shaped: 128x128 colour images, 1,000 classes, a residual stem, low-rank transforms.

Command:  capsnet train imagenet --data.uri gs://BUCKET/imagenet
Hardware: eight GPUs
Time:     not measured here
Score:    not measured here

7.8 M parameters. Of these 0.5 M are the head: each of 32 child types is projected to 32 numbers [32, 16, 32], and one
transform of these [1, 32, 1000, 16] serves all children; a full one would have 131 M, one shared over positions 8.2 M.
The transform's initial scale follows the number of parents: class capsules start with a length of 0.02, at the scale
that suits ten classes it is 0.0004. Softmax over the lengths; with 300 classes made of the embedded set, 600 steps
took it and the margin loss equally far (25.6 and 25.4 % of test images).

Records that are shuffled together are held in memory, encoded: 7.6 GB on a machine that reads all lanes, whatever the
number of its ranks. Where a job has less (4 GiB in k8s/bases/job), lower data.shuffle_window: 512 take 1 GB.
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
            head=c.HeadConfig(pose=16, transform="low_rank", rank=32, initial_scale="parents"),
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
