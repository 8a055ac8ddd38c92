"""Sizes worked out without TensorFlow against the networks that are built, and against the papers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer import configs
from trainer.config import ModelConfig, with_overrides
from trainer.errors import ConfigError
from trainer.model import routing
from trainer.model.network import build
from trainer.model.shapes import shapes

SMALL = {"image_size": 12, "primary": {"types": 3, "pose": 4, "kernel": 3, "stride": 2}, "decoder": {"hidden": [5]}}
CONFIGS = [
    {"stem": {"channels": [8], "kernel": 3, "strides": [1]}},
    {"stem": {"channels": [8, 16], "kernel": 3, "strides": [2, 1], "padding": "same", "norm": "group"}, "channels": 3},
    {"stem": {"channels": [8, 16], "kernel": 4, "strides": [1, 2], "norm": "group", "norm_groups": 4}},
    {"stem": {"kind": "residual", "channels": [8], "strides": [1]}, "head": {"transform": "shared"}},
    {"stem": {"kind": "residual", "channels": [8, 16], "strides": [2, 2], "blocks": 2}, "channels": 3, "classes": 4},
    {"stem": {"channels": [8], "kernel": 3, "strides": [1]}, "head": {"transform": "low_rank", "rank": 3}},
    {"stem": {"channels": [4], "kernel": 3, "strides": [1]}, "decoder": {"hidden": []}, "routing": {"bias": True}},
    {"stem": {"channels": [4], "kernel": 1, "strides": [1]}, "routing": {"algorithm": "uniform", "bias": True}},
    {
        "stem": {"channels": [4, 8], "kernels": [5, 2], "strides": [1, 2], "norm": "group_last", "norm_groups": 2},
        "primary": {"types": 2, "pose": 4, "kernel": 4, "stride": 1, "grouped": True},
    },
    {
        "stem": {"channels": [8], "kernel": 3, "strides": [2]},
        "primary": {"types": 4, "pose": 2, "kernel": 3, "stride": 2, "grouped": True, "nonlinearity": "layer_norm"},
    },
    {
        "stem": {"channels": [8], "kernel": 3, "strides": [2]},
        "primary": {"types": 3, "pose": 2, "kernel": 3, "stride": 2, "activation": "sigmoid", "nonlinearity": "none"},
    },
    *({"stem": {"channels": [4], "kernel": 3, "strides": [2]}, "routing": {"algorithm": a}} for a in routing.names()),
    {
        "stem": {"channels": [4], "kernel": 3, "strides": [2]},
        "routing": {"algorithm": "random", "bias": True},
        "head": {"transform": "shared"},
    },
    {
        "stem": {"channels": [4], "kernel": 5, "strides": [3]},
        "primary": {"types": 2, "pose": 3, "kernel": 3, "stride": 1, "padding": "same"},
    },
]


@pytest.mark.parametrize("tree", CONFIGS, ids=range(len(CONFIGS)))
def test_agrees_with_the_network(tree: dict) -> None:
    config = ModelConfig.model_validate(SMALL | tree)
    sizes, net = shapes(config), build(config)
    assert sizes.parameters == net.count_params()
    for part, count in (
        ("stem", sizes.stem_parameters),
        ("primary", sizes.primary_parameters),
        ("class_capsules", sizes.head_parameters),
        ("decoder", sizes.decoder_parameters),
    ):
        layer = getattr(net, part)
        assert count == (0 if layer is None else layer.count_params()), part
    features_shape = net.stem.compute_output_shape((None, *net.image_shape))
    assert features_shape[1:3] == (sizes.stem_sides[-1],) * 2
    side = net.primary.conv.compute_output_shape(features_shape)[1]
    assert (side, side * side * config.primary.types) == (sizes.primary_side, sizes.children)
    low_rank = config.head.transform == "low_rank"
    typed = net.class_capsules.projection_TPK if low_rank else net.class_capsules.transform_parts[0]
    assert typed.shape[0] == sizes.transforms


def test_parameters_of_the_papers_networks() -> None:
    mnist = configs.load("sabour2017").model
    assert shapes(mnist).parameters == 8_215_568
    assert shapes(mnist).parameters - shapes(mnist).decoder_parameters == 6_804_224
    efficient = shapes(configs.load("efficient_capsnet").model)
    assert (efficient.parameters - efficient.decoder_parameters, efficient.children) == (161_824, 16)
    large = shapes(configs.load("imagenet").model)
    assert (large.parameters, large.head_parameters) == (7_788_608, 32 * 16 * 32 + 32 * 1000 * 16)
    cifar = shapes(configs.load("sabour2017_cifar10").model)
    assert (cifar.parameters, cifar.children) == (22_476_288, 9_216)


def test_parameters_of_matrix_capsules() -> None:
    """The paper states 310 K and 68 K; its text adds up to these."""
    large = configs.load("hinton2018")
    smaller = {"model.stem.channels": "64", "model.primary.types": "8", "model.layers.types": "16,16"}
    for config, count in ((large, 316_394), (with_overrides(large, smaller), 67_154)):
        sizes = shapes(config.model)
        assert sizes.parameters == count
        assert [layer.side for layer in sizes.layers] == [6, 4]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"image_size": 8}, "model.stem, convolution 0"),
        ({"image_size": 12}, "model.primary"),
        ({"stem": {"channels": [12], "norm": "group"}}, "model.stem.norm_groups 8 does not divide 12"),
        ({"primary": {"types": 4, "grouped": True}}, "grouped: 4 types of pose 8 need 32 channels of the stem, .* 256"),
        ({"stem": {"kind": "residual", "channels": [4]}}, "model.stem.norm_groups 8 does not divide 4"),
    ],
)
def test_sizes_that_do_not_work_are_one_line(tree: dict, says: str) -> None:
    config = ModelConfig.model_validate(tree)
    for attempt in (shapes, build):
        with pytest.raises(ConfigError, match=says) as error:
            attempt(config)
        assert "\n" not in str(error.value)


def test_needs_no_tensorflow() -> None:
    code = (
        "import sys; from trainer import configs; from trainer.model import routing, shapes; routing.names(); "
        "[shapes.shapes(configs.load(name).model) for name in configs.names()]; configs.claims(); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
