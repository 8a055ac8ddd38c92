"""The Keras model against the network that it is made of, which is an implementation of its own.

Axes: B batch, H W image, C channels.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.test_recipes import SMALLER
from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig, with_overrides
from trainer.data import pipeline
from trainer.data.augment import CENTRAL_SIDE
from trainer.errors import CapsnetError
from trainer.export import archive, keras_model
from trainer.export.routing import ROUTES
from trainer.model import parts, routing
from trainer.model.network import CapsNet, build

SINGLE = 3e-5  # float32: the same sums in other orders, 6e-6 seen; each iteration and layer lets rounding grow

SMALL = {
    "model.image_size": 14,
    "model.classes": 5,
    "model.stem.channels": "8,8",
    "model.stem.strides": "2,1",
    "model.stem.norm_groups": 4,
    "model.primary.types": 4,
    "model.primary.pose": 4,
    "model.primary.stride": 1,
    "model.head.pose": 6,
    "model.decoder.hidden": "8",
    "model.routing.xla": False,  # its compilation takes longer than all else here
}
LAYERS = {
    "model.layers.types": "3,4",
    "model.layers.poses": "4,4",
    "model.layers.kernels": "3,3",
    "model.layers.strides": "1,2",
}
MATRICES = {"model.matrix_poses": True, "model.head.pose": 4}
SIGMOID = {"model.primary.nonlinearity": "none", "model.primary.activation": "sigmoid"}
OPTIONS: dict[str, dict[str, Any]] = {
    "valid padding, no norm": {"model.stem.padding": "valid", "model.stem.norm": "none"},
    "kernels of each convolution": {"model.stem.kernels": "5,3"},
    "norm after relu": {"model.stem.norm": "group_last"},
    "residual stem": {"model.stem.kind": "residual", "model.stem.blocks": 2},
    "colour": {"model.channels": 3},
    "primary same": {"model.primary.padding": "same", "model.primary.stride": 2},
    "primary grouped": {"model.primary.grouped": True, "model.primary.types": 2},
    "primary grouped over the grid": {
        "model.primary.grouped": True,
        "model.primary.types": 2,
        "model.primary.kernel": 7,
    },
    "squash_exponential": {"model.primary.nonlinearity": "squash_exponential"},
    "layer_norm": {"model.primary.nonlinearity": "layer_norm"},
    "no nonlinearity": {"model.primary.nonlinearity": "none"},
    "activations that are not read": SIGMOID,
    "one iteration": {"model.routing.iterations": 1},
    "stopped gradient": {"model.routing.stop_gradient": True},
    "cosine": {"model.routing.agreement": "cosine"},
    "temperature": {"model.routing.temperature": 2.5},
    "cosine and temperature, streamed or not": {"model.routing.agreement": "cosine", "model.routing.temperature": 0.5},
    "stored": {"model.routing.implementation": "stored"},
    "streamed": {"model.routing.implementation": "streamed"},
    "shared": {"model.head.transform": "shared"},
    "shared, coordinates": {"model.head.transform": "shared", "model.head.coordinates": True},
    "low rank": {"model.head.transform": "low_rank", "model.head.rank": 3},
    "low rank, coordinates": {
        "model.head.transform": "low_rank",
        "model.head.rank": 3,
        "model.head.coordinates": True,
    },
    "matrices": MATRICES,
    "matrices, shared, coordinates": MATRICES | {"model.head.transform": "shared", "model.head.coordinates": True},
    "layers": LAYERS,
    "layers of matrices": LAYERS | MATRICES,
    "layers with residual": LAYERS
    | {
        "model.layers.types": "4,4",
        "model.layers.padding": "same",
        "model.layers.strides": "1,1",
        "model.layers.residual": True,
    },
    "layers at each position": LAYERS | {"model.layers.kernels": "1,1", "model.layers.strides": "1,1"},
    "no decoder": {"model.decoder.hidden": ""},
    "control": {"model.head.kind": "conv_parameters"},
    "control of shared transforms": {"model.head.kind": "conv_multiply_adds", "model.head.transform": "low_rank"},
    "control without decoder": {"model.head.kind": "conv_parameters", "model.decoder.hidden": ""},
    "control of logits": {
        "model.head.kind": "conv_parameters",
        "model.head.scores": "linear",
        "loss.kind": "cross_entropy",
    },
    "control, grouped": {
        "model.head.kind": "conv_parameters",
        "model.primary.grouped": True,
        "model.primary.types": 2,
    },
    "self_routing of activations": SIGMOID | {"model.routing.algorithm": "self_routing"},
    "self_routing with coordinates": {
        "model.routing.algorithm": "self_routing",
        "model.head.transform": "shared",
        "model.head.coordinates": True,
    },
    "em as published": LAYERS
    | MATRICES
    | SIGMOID
    | {"model.routing.algorithm": "em", "model.head.transform": "shared", "model.head.coordinates": True},
    "em over a border": LAYERS | {"model.routing.algorithm": "em", "model.layers.padding": "same"},
    "em over an uneven border": LAYERS
    | {"model.routing.algorithm": "em", "model.layers.padding": "same", "model.layers.kernels": "2,3"},
    "em over a border, leaky": LAYERS
    | {"model.routing.algorithm": "em", "model.layers.padding": "same", "model.routing.leaky": True},
    "em with its temperature": {
        "model.routing.algorithm": "em",
        "model.routing.em.inverse_temperature": 1.5,
        "model.routing.em.inverse_temperature_decay": 0.9,
    },
    "em with residual": LAYERS
    | {
        "model.routing.algorithm": "em",
        "model.layers.types": "4,4",
        "model.layers.padding": "same",
        "model.layers.strides": "1,1",
        "model.layers.residual": True,
    },
    "concurrent": LAYERS | {"model.routing.algorithm": "inverted", "model.routing.concurrent": True},
    "concurrent, one layer": {"model.routing.algorithm": "inverted", "model.routing.concurrent": True},
}
for algorithm in routing.names():
    each = {"model.routing.algorithm": algorithm}
    OPTIONS[algorithm] = each
    OPTIONS[f"{algorithm}, leaky, bias"] = each | {"model.routing.leaky": True, "model.routing.bias": True}
    OPTIONS[f"{algorithm}, shared"] = each | {"model.head.transform": "shared"}
    OPTIONS[f"{algorithm}, layers"] = each | LAYERS | {"model.routing.bias": True}


def of_options(name: str) -> RunConfig:
    return with_overrides(configs.load("quick"), SMALL | OPTIONS[name])


def of_recipe(name: str) -> RunConfig:
    return with_overrides(configs.load(name), SMALLER.get(name, {}) | {"model.routing.xla": False})


def trained(config: RunConfig) -> CapsNet:
    """A network none of whose weights is what it was at first, or is zero; its couplings are not uniform."""
    net = build(config.model)
    rng = np.random.default_rng(0)
    for variable in net.variables:
        value = variable.numpy()
        value += 0.3 * max(float(value.std()), 0.3) * rng.standard_normal(value.shape)
        # a transform that all children share makes votes alike, of which three times as much is too much
        decides = variable.path.endswith(("class_capsules/transform", "/route")) and value.shape[0] > 1
        variable.assign(3.0 * value if decides else value)
    return net


def images(config: RunConfig, records: int = 3) -> np.ndarray:
    """Noise of a size that the run takes; one that is resized has its pixels kept as they are."""
    size, resize = config.model.image_size, config.data.augment.resize
    height, width = {
        "none": (size, size),
        "crop": (size + 4, size + 7),
        "whole": (size, size),
        "random_resized_crop": (round(size / CENTRAL_SIDE), round(size / CENTRAL_SIDE) + 3),
    }[resize]
    return np.random.default_rng(1).integers(0, 256, (records, height, width, config.model.channels), np.uint8)


def read_back(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    archive.make_portable(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def agree(config: RunConfig, net: CapsNet, model: keras.Model, images_BHWC: np.ndarray) -> None:
    ours, theirs = net(pipeline.prepare_images(config, images_BHWC)), model(images_BHWC)
    np.testing.assert_allclose(theirs["class_scores"], ours.class_scores_BJ, rtol=SINGLE, atol=SINGLE)
    np.testing.assert_allclose(theirs["poses"], ours.poses_BJQ, rtol=SINGLE, atol=SINGLE)
    np.testing.assert_array_equal(theirs["label"], np.argmax(ours.class_scores_BJ, axis=-1))
    assert ("reconstruction" in theirs) == (ours.reconstruction_BHWC is not None)
    if ours.reconstruction_BHWC is not None:
        np.testing.assert_allclose(theirs["reconstruction"], ours.reconstruction_BHWC, rtol=SINGLE, atol=SINGLE)


def name(path: str) -> str:
    """The same of a weight of the network and of the Keras model."""
    return parts.whole(path.removeprefix("capsnet/").removesuffix("/kernel")).replace("/", "_")


def gradients(call: Any, images_BHWC: np.ndarray, weights: list[keras.Variable]) -> dict[str, tf.Tensor]:
    """Of an uneven sum of what ``call`` gives, by name of weight; without those that it does not depend on."""
    with tf.GradientTape() as tape:
        outputs = call(images_BHWC)
        total = tf.add_n(
            [tf.reduce_sum(tf.cos(tf.range(tf.size(x), dtype=x.dtype)) * tf.reshape(x, [-1])) for x in outputs]
        )
    found = tape.gradient(total, [weight.value for weight in weights])
    return {name(weight.path): each for weight, each in zip(weights, found, strict=True) if each is not None}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(option: str, tmp_path: Path) -> None:
    config = of_options(option)
    net, images_BHWC = trained(config), images(config)
    model = read_back(keras_model.build(config, net), tmp_path)
    agree(config, net, model, images_BHWC)

    # each weight that an output of the network depends on is in the model, and no other
    prepared_BHWC = pipeline.prepare_images(config, images_BHWC)
    of_outputs = gradients(lambda x: [y for y in net(x)[:3] if y is not None], prepared_BHWC, net.trainable_variables)
    assert {name(weight.path) for weight in model.trainable_variables} == set(of_outputs)
    # and can be trained on
    of_scores = gradients(lambda x: [net(x).class_scores_BJ], prepared_BHWC, net.trainable_variables)
    reached = gradients(lambda x: [model(x)["class_scores"]], images_BHWC, model.trainable_variables)
    assert set(reached) == set(of_scores)
    for weight, gradient in reached.items():
        assert np.all(np.isfinite(gradient)), weight
        assert np.any(gradient != 0), weight


@pytest.mark.parametrize("recipe", configs.names())
def test_every_recipe(recipe: str, tmp_path: Path) -> None:
    config = of_recipe(recipe)
    net = trained(config)
    agree(config, net, read_back(keras_model.build(config, net), tmp_path), images(config, 2))


HOW_NOT_WHAT = {
    "model.routing.xla",
    "model.routing.memory_bytes",
    "model.routing.block_bytes",
    "model.head.initial_scale",
    "model.head.initial_stddev",
}
FIELDS = {path: field for path, field in configuration.leaves() if path.startswith("model.")}


@pytest.mark.parametrize("path", sorted(FIELDS.keys() - HOW_NOT_WHAT))
def test_options_try_every_choice(path: str) -> None:
    """What a network gets in future has a place in OPTIONS, and so its Keras form, or fails here."""
    tried = {configuration.value_at(of_options(option), path) for option in OPTIONS}
    annotation, default = FIELDS[path].annotation, FIELDS[path].default
    choices = set(get_args(annotation)) if get_origin(annotation) is Literal else set()
    assert tried >= choices
    assert len(tried | {default}) > 1


def test_every_routing_algorithm_has_its_keras_form() -> None:
    assert set(ROUTES) == set(routing.names())
    assert keras_model.why_not(of_options("em").model) is None


def test_one_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTES, "em")
    assert keras_model.why_not(of_options("em").model) == "trainer/export/routing/ has no em"
    assert keras_model.why_not(of_options("control").model) is None


def test_a_transform_in_parts_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**12)
    config = of_options("dynamic")
    net = trained(config)
    assert len(net.class_capsules.transform_parts) > 2
    agree(config, net, read_back(keras_model.build(config, net), tmp_path), images(config))


def test_no_weight_is_left_behind() -> None:
    config = of_options("dynamic")
    net = trained(config)
    net.decoder = None  # its weights are still the network's
    with pytest.raises(CapsnetError, match=r"would be without capsnet/decoder/hidden_0/bias, .*--format saved_model"):
        keras_model.build(config, net)


def test_the_file_holds_no_code_and_nothing_that_old_versions_stop_at(tmp_path: Path) -> None:
    config = of_options("em as published")
    read_back(keras_model.build(config, trained(config)), tmp_path)
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        settings = json.loads(file.read("config.json"))
    found = list(objects(settings))
    assert {each["module"].partition(".")[0] for each in found if each.get("module")} == {"keras"}
    assert not {each["class_name"] for each in found if "class_name" in each} & {"Lambda", "function", "TFSMLayer"}
    for each in found:
        assert not {key for key in archive.UNSET if key in each and each[key] is None}
        if str(each.get("module")).startswith(archive.OPERATIONS):
            assert "name" not in each["config"]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)
