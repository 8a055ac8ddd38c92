"""The description of a run: one frozen, validated tree of plain values.

What a run *is* stands here and nowhere else; what follows from it (batch of a rank, steps of an epoch) is
derived where it is needed. The number of ranks is not a fact of the run. Knows nothing of TensorFlow.

A field that may change between two parts of one run without changing what the run means is declared with
``neutral``; every other difference is refused on resume.
"""

from trainer.config.data import STANDARD_AFFINE, AffineConfig, AugmentConfig, DataConfig, OverlapConfig, StorageConfig
from trainer.config.fields import differences, dump, leaves, load, nearest, validated, value_at, with_overrides
from trainer.config.learning import LossConfig, OptimizerConfig
from trainer.config.model import (
    DecoderConfig,
    EmConfig,
    HeadConfig,
    LayersConfig,
    ModelConfig,
    PrimaryConfig,
    RoutingConfig,
    StemConfig,
)
from trainer.config.run import (
    CheckpointConfig,
    EvaluateConfig,
    LogConfig,
    Precision,
    RunConfig,
    TrainConfig,
    WatchdogConfig,
)
from trainer.config.section import Section

__all__ = [
    "STANDARD_AFFINE",
    "AffineConfig",
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "DecoderConfig",
    "EmConfig",
    "EvaluateConfig",
    "HeadConfig",
    "LayersConfig",
    "LogConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OverlapConfig",
    "Precision",
    "PrimaryConfig",
    "RoutingConfig",
    "RunConfig",
    "Section",
    "StemConfig",
    "StorageConfig",
    "TrainConfig",
    "WatchdogConfig",
    "differences",
    "dump",
    "leaves",
    "load",
    "nearest",
    "validated",
    "value_at",
    "with_overrides",
]
