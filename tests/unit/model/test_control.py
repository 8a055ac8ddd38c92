"""The convolutional control: as large as the capsules it stands for, with outputs of the same kind.

Axes: B batch, H W image, J classes, Q numbers of a class.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer import configs, losses
from trainer.config import ModelConfig, RunConfig, with_overrides
from trainer.errors import ConfigError
from trainer.model.control import INITIAL_SCORE
from trainer.model.costs import Cost, control_width, costs
from trainer.model.network import build
from trainer.summaries import said

KINDS = ("conv_parameters", "conv_multiply_adds")
SMALLER = {"sabour2017": {"model.stem.channels": "64", "model.primary.types": 16, "model.decoder.hidden": "32"}}

TINY = {
    "model.head.transform": "shared",
    "model.primary.types": 1,
    "model.primary.pose": 1,
    "model.decoder.hidden": "8",
}


def control(name: str, kind: str, **changes) -> RunConfig:
    return with_overrides(configs.load(name), SMALLER.get(name, {}) | {"model.head.kind": kind} | changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", configs.names())
def test_costs_what_the_capsules_cost(name: str, kind: str) -> None:
    """Within half a channel of the convolution; 2 % is half a channel of 25."""
    capsules = costs(control(name, "capsules").model)
    found = costs(control(name, kind).model)
    matched = kind.removeprefix("conv_")
    assert getattr(found.head, matched) == pytest.approx(getattr(capsules.capsules, matched), rel=0.02)
    assert (found.stem, found.decoder, found.primary) == (capsules.stem, capsules.decoder, Cost())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["quick", "sabour2017", "efficient_capsnet"])
def test_counts_are_those_of_the_network(name: str, kind: str) -> None:
    config = control(name, kind).model
    net, found = build(config), costs(config)
    assert net.control.count_params() == found.head.parameters
    assert net.count_params() == found.total.parameters


def test_width_by_hand() -> None:
    """2017: 5,308,672 parameters of primary and 1,474,560 of class capsules. A channel has 81 x 256 weights and a bias,
    and at each of 36 positions one for each of 10 scores and 160 features."""
    config = configs.load("sabour2017")
    assert control_width(with_overrides(config, {"model.head.kind": "conv_parameters"}).model) == round(
        (5_308_672 + 1_474_560 - 170) / (81 * 256 + 1 + 36 * 170)
    )
    # of 36 positions and the dense layers, against 191,102,976 and 2,396,160 multiply-adds
    assert control_width(with_overrides(config, {"model.head.kind": "conv_multiply_adds"}).model) == round(
        193_499_136 / (36 * 81 * 256 + 36 * 170)
    )


def test_follows_what_it_replaces() -> None:
    widths = [
        control_width(control("quick", "conv_multiply_adds", **{"model.routing.iterations": r}).model) for r in (1, 9)
    ]
    assert widths[0] < widths[1]


def test_capsules_too_small_for_a_control_are_one_line() -> None:
    config = control("imagenet", "conv_parameters", **TINY).model
    for attempt in (costs, build):
        with pytest.raises(ConfigError, match=r"model\.head\.kind conv_parameters") as error:
            attempt(config)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(("grouped", "transform"), [(False, "full"), (True, "full"), (False, "shared")])
def test_outputs_are_of_the_same_kind(grouped: bool, transform: str, precision: str) -> None:
    tree = {
        "image_size": 12,
        "classes": 4,
        "stem": {"channels": [16], "kernel": 3, "strides": [1]},
        "primary": {"types": 4, "pose": 4, "kernel": 3, "stride": 2, "grouped": grouped},
        "head": {"kind": "conv_parameters", "pose": 6, "transform": transform},
        "decoder": {"hidden": [8]},
    }
    net = build(ModelConfig.model_validate(tree), precision=precision, seed=1)
    images_BHWC = np.random.default_rng(0).random((3, 12, 12, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        outputs = net(images_BHWC, np.array([0, 1, 3]), trace=True, coupling_records=2)
        total = tf.reduce_sum(outputs.class_scores_BJ) + tf.reduce_mean(outputs.reconstruction_BHWC)
    wide = tf.float64 if precision == "float64" else tf.float32
    assert outputs.class_scores_BJ.dtype == outputs.reconstruction_BHWC.dtype == wide
    assert outputs.poses_BJQ.shape == (3, 4, 6)
    assert 0.0 < np.min(outputs.class_scores_BJ) <= np.max(outputs.class_scores_BJ) < 1.0
    assert outputs.traces == {}
    assert all(np.all(np.isfinite(gradient)) for gradient in tape.gradient(total, net.trainable_variables))


def test_without_a_decoder_there_are_scores_alone() -> None:
    net = build(control("quick", "conv_parameters", **{"model.decoder.hidden": ""}).model)
    outputs = net(np.zeros([2, 28, 28, 1], np.float32))
    assert outputs.poses_BJQ.shape == (2, 10, 1)
    np.testing.assert_array_equal(outputs.poses_BJQ[..., 0], outputs.class_scores_BJ)
    np.testing.assert_allclose(outputs.class_scores_BJ, INITIAL_SCORE, rtol=1e-6)  # of an empty image


def test_linear_scores_are_the_logits_of_logistic_ones_but_for_the_first_bias() -> None:
    """For a softmax, which a thousand absent classes do not change."""
    linear = {"loss.kind": "cross_entropy", "model.head.scores": "linear"}
    ours, theirs = (build(control("quick", "conv_parameters", **fields).model) for fields in (linear, {}))
    images_BHWC = np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)
    scores_BJ, logistic_BJ = (net(images_BHWC).class_scores_BJ.numpy().astype(np.float64) for net in (ours, theirs))
    logits_BJ = np.log(logistic_BJ / (1 - logistic_BJ)) - np.log(INITIAL_SCORE / (1 - INITIAL_SCORE))
    np.testing.assert_allclose(scores_BJ, logits_BJ, atol=1e-5)  # float32 through the logistic function and back
    assert np.min(scores_BJ) < -0.05


@pytest.mark.parametrize("loss", ["margin", "nll"])
def test_linear_scores_are_refused_where_they_have_no_meaning(loss: str) -> None:
    with pytest.raises(ConfigError, match="linear has no bounds"):
        control("quick", "conv_parameters", **{"model.head.scores": "linear", "loss.kind": loss})
    with pytest.raises(ConfigError, match="for the controls without capsules"):
        with_overrides(configs.load("quick"), {"model.head.scores": "linear", "loss.kind": "cross_entropy"})


@pytest.mark.parametrize("transform", ["full", "shared"])
def test_sees_positions_where_the_capsules_do(transform: str) -> None:
    changes = {"model.head.transform": transform, "model.decoder.hidden": ""}
    net = build(control("quick", "conv_parameters", **changes).model).control
    features_BHWC = np.random.default_rng(0).random((1, 7, 7, 128)).astype(np.float32)
    patch_BHWC = np.zeros_like(features_BHWC)
    patch_BHWC[:, 3, 3] = features_BHWC[:, 3, 3]  # in one window of 3 with stride 2
    moved_BHWC = np.roll(patch_BHWC, 2, axis=1)  # in the next
    here, there = (net(patch).activations_BN.numpy() for patch in (patch_BHWC, moved_BHWC))
    assert (np.max(np.abs(here - there)) > 1e-4) == (transform == "full")


def test_board_has_no_page_for_routing() -> None:
    found = said.layout(build(control("quick", "conv_parameters").model))
    assert "Is routing alive?" not in [category.title for category in found.category]


@pytest.mark.parametrize("loss", ["margin", "spread", "cross_entropy"])
def test_learns_with_every_loss(loss: str) -> None:
    config = control("quick", "conv_parameters", **{"loss.kind": loss})
    net = build(config.model)
    rng = np.random.default_rng(0)
    images_BHWC, labels_B = rng.random((10, 28, 28, 1)).astype(np.float32), np.arange(10)

    def mean_loss() -> tf.Tensor:
        terms = losses.loss_terms(config.loss, net(images_BHWC, labels_B), images_BHWC, labels_B)
        return tf.reduce_mean(terms[loss])

    values = []
    for _ in range(8):
        with tf.GradientTape() as tape:
            value = mean_loss()
        values.append(float(value))
        weights = [v for v in net.trainable_variables if "decoder" not in v.path and "features" not in v.path]
        for variable, gradient in zip(weights, tape.gradient(value, [v.value for v in weights]), strict=True):
            variable.assign_sub(0.01 * gradient / (tf.norm(gradient) + 1e-9))
    assert values[-1] < values[0]
