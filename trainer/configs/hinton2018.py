"""The matrix-capsule network of Hinton, Sabour and Frosst 2018 (section 4) for smallNORB: A = B = C = D = 32.

Command:  capsnet train hinton2018 --data.uri DIR
Hardware: one GPU
Time:     not measured here
Score:    not measured here (the paper: 1.8 % error, 1.4 % with several crops a test image)

DIR holds 48x48 grey images of 5 classes, of which random 32x32 crops are seen, in tests the central one. 5x5
convolution, matrix capsules made by a 1x1 convolution, two convolutional capsule layers with 3x3 windows (stride 2 and
1), class capsules whose transforms are shared over positions, with coordinate addition; 3 iterations of EM.

The paper states 310 K parameters; by its text they are 316,394: 832 + 17,952 of the convolutions, 2 x 147,456 + 2,560
of the transforms, 138 of beta_a and beta_u. Its smaller network, A = 64, B = 8, C = D = 16, has 67,154:
--model.stem.channels 64 --model.primary.types 8 --model.layers.types 16,16. Learning rate, batch size and the
schedules of lambda and of the margin are ours; the paper does not state them.
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import NOT_MEASURED, Claim

CLAIM = Claim(hardware="one GPU", time=NOT_MEASURED, score=NOT_MEASURED)


def config() -> c.RunConfig:
    return c.RunConfig(
        model=c.ModelConfig(
            image_size=32,
            channels=1,
            classes=5,
            matrix_poses=True,
            stem=c.StemConfig(kind="conv", channels=(32,), kernel=5, strides=(2,), padding="valid"),
            primary=c.PrimaryConfig(types=32, pose=16, kernel=1, stride=1, nonlinearity="none", activation="sigmoid"),
            layers=c.LayersConfig(types=(32, 32), poses=(16, 16), kernels=(3, 3), strides=(2, 1)),
            routing=c.RoutingConfig(algorithm="em", iterations=3),
            head=c.HeadConfig(pose=16, transform="shared", coordinates=True),
            decoder=c.DecoderConfig(hidden=()),
        ),
        loss=c.LossConfig(kind="spread", spread_margin_epochs=50),
        optimizer=c.OptimizerConfig(
            kind="adam", learning_rate=0.003, schedule="exponential", decay_rate=0.96, decay_epochs=(53.0,)
        ),
        data=c.DataConfig(uri="data/smallnorb", augment=c.AugmentConfig(resize="crop")),
        train=c.TrainConfig(epochs=150, global_batch_size=64),
    )
