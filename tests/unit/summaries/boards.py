"""Boards of a small network, and what they wrote, read back with TensorFlow's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import eventfiles, summaries
from trainer.config import RunConfig, with_overrides
from trainer.data.index import load_index
from trainer.model import network
from trainer.model.network import CapsNet

SMALL = {
    "recipe": "small",
    "model.image_size": 12,
    "model.classes": 4,
    "model.stem.channels": "8",
    "model.stem.kernel": 5,
    "model.primary.types": 3,
    "model.primary.pose": 4,
    "model.primary.kernel": 4,
    "model.head.pose": 6,
    "model.decoder.hidden": "16",
    "model.routing.xla": False,
    "log.observe_records": 6,
}
CHILDREN, CLASSES, RECORDS = 27, 4, 6
TRAIN = {
    "epoch": 0.5,
    "loss": 0.8,
    "accuracy": 0.25,
    "margin": 0.7,
    "reconstruction": 0.1,
    "learning_rate": 0.001,
    "gradient_norm": 2.0,
    "images_per_second": 1000.0,
    "input_wait": 0.02,
}
TRAIN_TAGS = {
    "train/epoch": 0.5,
    "loss/total": 0.8,
    "accuracy/train": 0.25,
    "loss/margin": 0.7,
    "loss/reconstruction": 0.1,
    "train/learning_rate": 0.001,
    "train/gradient_norm": 2.0,
    "speed/images_per_second": 1000.0,
    "speed/input_wait": 0.02,
}
TEST = {"accuracy": 0.5, "top5": 0.75, "margin": 0.6, "reconstruction": 0.2, "loss": 0.8}
TEST_TAGS = {
    "accuracy/test": 0.5,
    "accuracy/test_top5": 0.75,
    "loss/margin_test": 0.6,
    "loss/reconstruction_test": 0.2,
    "loss/total_test": 0.8,
}
SAID_ONCE = ("run/config", "custom_scalars__config__", "_hparams_/experiment", "_hparams_/session_start_info")
UNEXPLAINED = set(SAID_ONCE[1:])  # their pages have no place for it
LAYERS = ("stem/conv_0", "primary", "class_capsules", "decoder/hidden_0", "decoder/pixels")


def configured(**overrides: object) -> RunConfig:
    return with_overrides(RunConfig(), {**SMALL, **{name.replace("__", "."): v for name, v in overrides.items()}})


def built(config: RunConfig) -> CapsNet:
    return network.build(config.model, precision=config.train.precision, seed=3)


def batch_of(config: RunConfig, records: int = 8) -> dict[str, tf.Tensor]:
    size, channels = config.model.image_size, config.model.channels
    images_NHWC = np.random.default_rng(1).random((records, size, size, channels), np.float32)
    return {"image": tf.constant(images_NHWC), "label": tf.range(records, dtype=tf.int32) % CLASSES}


def board_for(folder: Path, config: RunConfig, net: CapsNet) -> summaries.Board:
    return summaries.Board(folder, config, net, load_index("embedded"))


def observed(folder: Path, config: RunConfig, net: CapsNet) -> dict[str, Any]:
    """What one look writes, as NumPy arrays by tag."""
    board = board_for(folder, config, net)
    board.observe(10, batch_of(config))
    board.close()
    return {value.tag: tf.make_ndarray(value.tensor) for _, value in values_in(folder)}


def values_in(folder: Path) -> list[tuple[int, Any]]:
    return [
        (event.step, value)
        for path in eventfiles.paths(folder)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
