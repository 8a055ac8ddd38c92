"""Self-routing (Hahn, Pyeon and Kim 2019) in the network of ``quick``, on the Fashion-MNIST subset.

Command:  capsnet train quick_self_routing
Hardware: two CPU cores
Time:     about 3 minutes
Score:    86.95 % test accuracy

Primary capsules have activations of their own beside poses of 16 numbers, which are not squashed. Class scores are
shares that sum to 1, and the loss is the negative logarithm of the right one. Poses of the class capsules play no part
in that: they are there for the decoder. In the paper poses pass a batch normalisation, here nothing.

Measured with seed 0, evaluations included: 162 s while other work kept the cores busy.
"""

from __future__ import annotations

from trainer import config as c
from trainer.configs import Claim, quick

CLAIM = Claim(hardware="two CPU cores", time="3 minutes", score="86.95 %")


def config() -> c.RunConfig:
    return c.with_overrides(
        quick.config(),
        {
            "model.primary.pose": 16,
            "model.primary.nonlinearity": "none",
            "model.primary.activation": "sigmoid",
            "model.routing.algorithm": "self_routing",
            "loss.kind": "nll",
        },
    )
