"""Efficient-CapsNet (Mazzia, Salvetti and Chiaberge 2021) for 28x28 grey images: 161,824 parameters and a decoder.

Command:  capsnet train efficient_capsnet
Hardware: one GPU
Time:     not measured here
Score:    not measured here

Four convolutions, a depthwise one as large as the grid that makes 16 primary capsules, self-attention routing. The
paper's network normalises over the batch after each ReLU; here no record sees the others, and the same place is taken
by group normalisation, which has as many parameters. The reconstruction's weight is the paper's 0.392 of the mean
over 784 pixels. Its rate ends at a tenth of the peak (after 76 epochs of 0.97 each), the one here falls further.
Its images are rotated, shifted, squeezed and partly erased; here they are shifted.
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
            stem=c.StemConfig(
                kind="conv",
                channels=(32, 64, 64, 128),
                kernels=(5, 3, 3, 3),
                strides=(1, 1, 1, 2),
                padding="valid",
                norm="group_last",
            ),
            primary=c.PrimaryConfig(
                types=16, pose=8, kernel=9, stride=1, padding="valid", grouped=True, nonlinearity="squash_exponential"
            ),
            routing=c.RoutingConfig(algorithm="self_attention"),
            head=c.HeadConfig(pose=16, transform="full"),
            decoder=c.DecoderConfig(hidden=(512, 1024)),
        ),
        loss=c.LossConfig(kind="margin", reconstruction_weight=0.0005),
        optimizer=c.OptimizerConfig(
            kind="adam", learning_rate=0.0005, schedule="exponential", decay_rate=0.97, decay_epochs=(1.0,)
        ),
        data=c.DataConfig(augment=c.AugmentConfig(shift=2)),
        train=c.TrainConfig(epochs=150, global_batch_size=16),
    )
