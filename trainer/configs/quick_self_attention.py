"""Self-attention routing as in Efficient-CapsNet (Mazzia et al. 2021) behind the stem of ``quick``: small and fast.

Command:  capsnet train quick_self_attention
Hardware: two CPU cores
Time:     about 2 minutes
Score:    89.55 % test accuracy

As in ``efficient_capsnet`` a depthwise convolution as large as the grid makes 16 primary capsules of 8 numbers.

Measured with seed 0, evaluations included: 121 s while other work kept the cores busy.
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import Claim, quick

CLAIM = Claim(hardware="two CPU cores", time="2 minutes", score="89.55 %")


def config() -> c.RunConfig:
    return c.with_overrides(
        quick.config(),
        {
            "model.primary.kernel": 7,
            "model.primary.stride": 1,
            "model.primary.grouped": True,
            "model.primary.nonlinearity": "squash_exponential",
            "model.routing.algorithm": "self_attention",
        },
    )
