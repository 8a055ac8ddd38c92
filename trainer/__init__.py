"""capsnet: capsule networks that train on one process or many.

    import trainer
    model = trainer.load("runs/quick-20260101-120000")   # or a folder made by 'capsnet export'
    print(model.classify("shoe.png"))

    net = trainer.build(trainer.RunConfig().model)       # a network alone, for a notebook
    outputs = net(images_BHWC)

TensorFlow is imported when one of these is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import ModelConfig, RunConfig
    from trainer.library import load
    from trainer.model.network import build

__all__ = ["ModelConfig", "RunConfig", "build", "load"]

_HOMES = {
    "ModelConfig": "trainer.config",
    "RunConfig": "trainer.config",
    "build": "trainer.model.network",
    "load": "trainer.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
