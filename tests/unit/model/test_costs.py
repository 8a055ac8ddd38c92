"""Costs against numbers worked out by hand, against the networks that are built, and against TensorFlow's profiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from trainer import configs
from trainer.config import ModelConfig, RoutingConfig
from trainer.errors import ConfigError
from trainer.model import routing
from trainer.model.costs import Cost, costs
from trainer.model.network import build
from trainer.model.routing import LayerSizes, products

SMALL = {
    "image_size": 12,
    "classes": 3,
    "stem": {"channels": [8, 16], "kernel": 3, "strides": [1, 2]},
    "primary": {"types": 3, "pose": 4, "kernel": 3, "stride": 1},
    "decoder": {"hidden": [5, 6]},
}
STEMS = [
    {"channels": [8, 16], "kernel": 3, "strides": [1, 2]},
    {"channels": [8, 16], "kernel": 4, "strides": [2, 1], "padding": "same", "norm": "group"},
    {"kind": "residual", "channels": [8, 16], "strides": [1, 2], "blocks": 2},
]


def test_network_of_2017_by_hand() -> None:
    found = costs(configs.load("sabour2017").model)
    assert found.stem == Cost(256 * 81 + 256, 20 * 20 * 256 * 81)
    assert found.primary == Cost(256 * 81 * 256 + 256, 6 * 6 * 256 * 81 * 256)
    # 1,152 x 10 votes of 16 numbers, each of 8 products; summed three times, compared with the parents twice
    assert found.head == Cost(1_152 * 10 * 8 * 16, 1_152 * 10 * 16 * (8 + 3 + 2))
    widths = 160 * 512 + 512 * 1_024 + 1_024 * 784
    assert found.decoder == Cost(widths + 512 + 1_024 + 784, widths)
    assert found.total == Cost(8_215_568, 8_294_400 + 191_102_976 + 2_396_160 + 1_409_024)


def test_residual_stem_by_hand() -> None:
    stem = {"kind": "residual", "channels": [8, 16], "strides": [1, 2]}
    found = costs(ModelConfig.model_validate(SMALL | {"stem": stem})).stem.multiply_adds
    first, stage_0 = 144 * 9 * 1 * 8, 144 * 9 * 8 * 8 * 2
    assert found == first + stage_0 + 36 * (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16)  # the shortcut is 1x1


def test_low_rank_by_hand() -> None:
    tree = SMALL | {"head": {"transform": "low_rank", "rank": 2, "pose": 7}}
    found = costs(ModelConfig.model_validate(tree)).head
    children = 2 * 2 * 3  # 12 pixels, 10 and 4 after the stem, 2 after the primary capsules
    votes = children * 2 * 3 * 7
    assert found == Cost(3 * 4 * 2 + 2 * 3 * 7, children * 4 * 2 + votes + 5 * children * 3 * 7)


@pytest.mark.parametrize(("grouped", "terms"), [(False, 16 * 9 * 16), (True, 16 * 9)])
def test_primary_capsules_with_activations_by_hand(grouped: bool, terms: int) -> None:
    primary = {"types": 4, "pose": 4, "kernel": 3, "stride": 1, "grouped": grouped, "activation": "sigmoid"}
    found = costs(ModelConfig.model_validate(SMALL | {"primary": primary})).primary
    activation = 9 * 16 * 4
    positions = 2 * 2  # 12 pixels, 10 and 4 after the stem
    assert found == Cost(terms + 16 + activation + 4, positions * (terms + activation))


@pytest.mark.parametrize("stem", STEMS, ids=range(len(STEMS)))
def test_agrees_with_the_profiler(stem: dict) -> None:
    """TensorFlow's count of floating point operations is two for each multiply-add, and leaves routing to itself."""
    config = ModelConfig.model_validate(SMALL | {"stem": stem, "routing": {"algorithm": "uniform", "xla": False}})
    net = build(config)
    forward = tf.function(lambda x: net(x).reconstruction_BHWC).get_concrete_function(
        tf.TensorSpec([1, 12, 12, 1], tf.float32)
    )
    operations = profiled(convert_variables_to_constants_v2(forward).graph)
    found = costs(config)
    assert operations["Conv2D"] == 2 * (found.stem + found.primary).multiply_adds
    assert operations["MatMul"] == 2 * (found.head + found.decoder).multiply_adds


def profiled(graph: tf.Graph) -> dict[str, int]:
    """Floating point operations by type of operation."""
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options.with_empty_output().build())
    found: dict[str, int] = {}
    while True:
        found[profile.name] = profile.float_ops
        if not profile.children:
            return found
        profile = profile.children[0]


def test_parameters_are_those_of_the_network() -> None:
    for name in ("quick", "sabour2017"):
        assert costs(configs.load(name).model).total.parameters == build(configs.load(name).model).count_params()


@pytest.mark.parametrize("algorithm", routing.names())
def test_every_algorithm_is_counted(algorithm: str) -> None:
    sizes = LayerSizes(6, 6, 3, 2, 4)
    few, many = (products.multiply_adds(RoutingConfig(algorithm=algorithm), s) for s in (sizes, sizes._replace(pose=8)))
    assert 6 * 2 * 3 * 4 <= few < many  # at least one dense product of the children with the transform


def test_an_algorithm_that_says_nothing_of_its_cost_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(products.KNOWN, "uniform")
    with pytest.raises(ConfigError, match=r"routing uniform: .*/routing/uniform\.py a function multiply_adds"):
        products.multiply_adds(RoutingConfig(algorithm="uniform"), LayerSizes(6, 6, 3, 2, 4))
    own = lambda config, sizes: 17  # noqa: E731
    monkeypatch.setattr(routing.get("uniform"), "multiply_adds", own, raising=False)
    assert products.multiply_adds(RoutingConfig(algorithm="uniform"), LayerSizes(6, 6, 3, 2, 4)) == 17


def test_needs_no_tensorflow() -> None:
    code = (
        "import sys; from trainer import configs; from trainer.model.costs import costs; "
        "[costs(configs.load(name).model) for name in configs.names()]; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
