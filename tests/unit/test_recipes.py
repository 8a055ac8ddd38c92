"""Every recipe loads, states what it claims, and trains a step; its size is reduced where it is too large here."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import tensorflow as tf

from trainer import configs, losses, optimizer
from trainer.config import ModelConfig, RunConfig, with_overrides
from trainer.errors import ConfigError
from trainer.model.network import build
from trainer.model.shapes import shapes

# imagenet's own network, on fewer pixels: 1,000 classes and its transform stay as they are
SMALLER = {
    "sabour2017": {"model.stem.channels": "16", "model.primary.types": 4, "model.decoder.hidden": "32"},
    "sabour2017_cifar10": {"model.stem.channels": "16", "model.primary.types": 4},
    "hinton2018": {
        "model.stem.channels": "8",
        "model.primary.types": 4,
        "model.layers.types": "4,4",
        "model.routing.xla": False,  # test_em.py compiles em; here that took ten times as long as all else
    },
    "imagenet": {"model.image_size": 32},
}


def small(name: str) -> RunConfig:
    return with_overrides(configs.load(name), SMALLER.get(name, {}))


def test_names() -> None:
    assert {"quick", "sabour2017", "sabour2017_cifar10", "imagenet", "efficient_capsnet"} <= set(configs.names())
    assert configs.DEFAULT in configs.names()
    assert set(configs.claims()) == set(configs.names())


@pytest.mark.parametrize("name", configs.names())
def test_head_states_what_the_claim_says(name: str) -> None:
    head = importlib.import_module(f"trainer.configs.{name}").__doc__
    claim = configs.claims()[name]
    for label, value in (("Hardware", claim.hardware), ("Time", claim.time), ("Score", claim.score)):
        assert any(line.startswith(f"{label}:") and value in line for line in head.splitlines()), label
    assert any(line.startswith("Command:") for line in head.splitlines())


@pytest.mark.parametrize("name", configs.names())
def test_loads(name: str) -> None:
    config = configs.load(name)
    assert config.recipe == name
    assert with_overrides(config, {}) == config
    shapes(config.model)


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean sabour2017"):
        configs.load("sabour")


def test_imagenet_starts_alive() -> None:
    """Neither dead, as with the scale that suits ten classes, nor with a few parents that took all children."""
    config = configs.load("imagenet").model
    images_BHWC = np.random.default_rng(0).random((2, 128, 128, 3)).astype(np.float32)
    alive, dead = (
        build(with_head(config, scale))(images_BHWC, trace=True).traces["class_capsules"]
        for scale in ("parents", "fixed")
    )
    assert 0.01 < np.mean(alive.parents.activations_BN) < 0.05
    assert np.max(alive.parents.activations_BN) < 0.5
    assert 0.999 < float(alive.entropy_R[-1]) < 0.99999
    assert np.mean(dead.parents.activations_BN) < 0.001  # so that the bounds tell one from the other
    assert float(dead.entropy_R[-1]) > 0.99999


def with_head(config: ModelConfig, initial_scale: str) -> ModelConfig:
    return config.model_copy(update={"head": config.head.model_copy(update={"initial_scale": initial_scale})})


@pytest.mark.parametrize("name", configs.names())
def test_trains_a_step(name: str) -> None:
    config = small(name)
    net = build(config.model, precision=config.train.precision, seed=config.seed)
    weights = net.trainable_variables
    update = optimizer.build_optimizer(config.optimizer, weights)
    rng = np.random.default_rng(0)
    images_BHWC = rng.random((2, *net.image_shape)).astype(np.float32)
    labels_B = np.array([0, config.model.classes - 1])

    @tf.function
    def train() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = net(images_BHWC, labels_B)
            terms = losses.loss_terms(config.loss, outputs, images_BHWC, labels_B)
            loss = tf.add_n([tf.reduce_mean(term) for term in terms.values()])
        gradients = tape.gradient(loss, [variable.value for variable in weights])
        gradients, norms_V = optimizer.clip(gradients, config.optimizer.clip_norm)
        update.learning_rate.assign(1e-3)
        update.apply(gradients, weights)
        return loss, tf.norm(norms_V)

    first, norm = train()
    assert np.isfinite(first)
    assert 0.0 < float(norm) < np.inf
    for _ in range(3):
        last, _ = train()
    assert float(last) < float(first)
