"""What a board writes, read back with TensorFlow's reader and compared with NumPy.

Axes: N observed records, H W image, C channels, I children, J parents, R routing iterations.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

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
TEST = {"accuracy": 0.5, "margin": 0.6, "reconstruction": 0.2, "loss": 0.8}
TEST_TAGS = {"accuracy/test": 0.5, "loss/margin_test": 0.6, "loss/reconstruction_test": 0.2, "loss/total_test": 0.8}
SAID_ONCE = {"run/config", "custom_scalars__config__"}


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


def test_scalars_stand_under_their_tags(tmp_path: Path) -> None:
    config = configured()
    board = board_for(tmp_path, config, built(config))
    board.train(10, TRAIN)
    board.test(20, TEST)
    board.close()
    found = {
        (step, value.tag): tf.make_ndarray(value.tensor).item()
        for step, value in values_in(tmp_path)
        if value.tag not in SAID_ONCE
    }
    expected = {(10, tag): value for tag, value in TRAIN_TAGS.items()}
    expected |= {(20, tag): value for tag, value in TEST_TAGS.items()}
    assert found == pytest.approx(expected, rel=1e-6)


def test_every_tag_is_explained(tmp_path: Path) -> None:
    config = configured(model__routing__leaky=True)
    board = board_for(tmp_path, config, built(config))
    for step in (10, 20):
        board.train(step, TRAIN)
        board.test(step, TEST)
        board.observe(step, batch_of(config))
    board.close()
    described = Counter(value.tag for _, value in values_in(tmp_path) if value.metadata.summary_description)
    tags = {value.tag for _, value in values_in(tmp_path)} - {"custom_scalars__config__"}
    assert described == dict.fromkeys(tags, 1)
    assert not any("{" in value.metadata.summary_description for _, value in values_in(tmp_path))


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("decoder", ["16", ""])
def test_tags_of_a_look(tmp_path: Path, leaky: bool, decoder: str) -> None:
    config = configured(model__routing__leaky=leaky, model__decoder__hidden=decoder, model__routing__iterations=2)
    names = ["entropy", "effective_parents", *(["unassigned"] if leaky else [])]
    expected = {f"routing/class_capsules/{name}_iteration_{iteration}" for name in names for iteration in (1, 2)}
    expected |= {"capsules/class_capsules/child_activations", "capsules/class_capsules/parent_activations"}
    expected |= {"pictures/reconstructions"} if decoder else set()
    assert set(observed(tmp_path, config, built(config))) - SAID_ONCE == expected


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("leaky", [False, True])
def test_entropies_are_those_of_the_couplings(tmp_path: Path, precision: str, leaky: bool) -> None:
    config = configured(train__precision=precision, model__routing__leaky=leaky)
    net = built(config)
    net.class_capsules.transform_parts[0].assign(
        net.class_capsules.transform_parts[0] * 20.0
    )  # so that routing decides
    batch = batch_of(config)
    outputs = net(batch["image"][:RECORDS], batch["label"][:RECORDS], trace=True, coupling_records=RECORDS)
    coupling_RNIJ = outputs.traces["class_capsules"].coupling_RNIJ.numpy().astype(np.float64)
    assert coupling_RNIJ.shape == (3, RECORDS, CHILDREN, CLASSES)
    if leaky:
        coupling_RNIJ = np.concatenate([coupling_RNIJ, 1 - coupling_RNIJ.sum(-1, keepdims=True)], -1)
    entropy_RNI = -(coupling_RNIJ * np.log(np.maximum(coupling_RNIJ, 1e-300))).sum(-1)
    expected_R = entropy_RNI.mean((1, 2)) / np.log(CLASSES + leaky)
    found = observed(tmp_path, config, net)
    written_R = [float(found[f"routing/class_capsules/entropy_iteration_{r}"]) for r in (1, 2, 3)]
    np.testing.assert_allclose(written_R, expected_R, rtol=1e-4)
    assert written_R[0] == pytest.approx(1, abs=1e-5)
    assert written_R[2] < 0.95
    effective_R = [float(found[f"routing/class_capsules/effective_parents_iteration_{r}"]) for r in (1, 2, 3)]
    np.testing.assert_allclose(effective_R, np.exp(entropy_RNI).mean((1, 2)), rtol=1e-4)
    if leaky:
        unassigned_R = [float(found[f"routing/class_capsules/unassigned_iteration_{r}"]) for r in (1, 2, 3)]
        np.testing.assert_allclose(unassigned_R, coupling_RNIJ[..., -1].mean((1, 2)), rtol=1e-3)


def test_histograms_hold_every_capsule_of_the_observed_records(tmp_path: Path) -> None:
    config = configured()
    net = built(config)
    batch = batch_of(config)
    outputs = net(batch["image"][:RECORDS], batch["label"][:RECORDS])
    lengths_BJ = np.linalg.norm(outputs.poses_BJQ.numpy(), axis=-1)
    found = observed(tmp_path, config, net)
    parents = found["capsules/class_capsules/parent_activations"]  # rows of left edge, right edge, count
    assert parents[:, 2].sum() == RECORDS * CLASSES
    np.testing.assert_allclose([parents[0, 0], parents[-1, 1]], [lengths_BJ.min(), lengths_BJ.max()], rtol=1e-5)
    assert found["capsules/class_capsules/child_activations"][:, 2].sum() == RECORDS * CHILDREN


@pytest.mark.parametrize("precision", ["float32", "float64", "float16"])
def test_a_picture_shows_inputs_beside_reconstructions(tmp_path: Path, precision: str) -> None:
    config = configured(train__precision=precision)
    net = built(config)
    batch = batch_of(config)
    outputs = net(batch["image"][:RECORDS], batch["label"][:RECORDS])
    width, height, png = observed(tmp_path, config, net)["pictures/reconstructions"]
    picture_HWC = tf.io.decode_png(png).numpy()
    factor, gap = 4, summaries.GAP  # 12 pixels as 48, below 56
    cell_height, cell_width = 48 + gap, 96 + gap
    assert picture_HWC.shape == (int(height), int(width), 1) == (gap + 2 * cell_height, gap + 4 * cell_width, 1)
    for number in range(RECORDS):
        row, column = divmod(number, 4)
        top, left = gap + row * cell_height, gap + column * cell_width
        pair = picture_HWC[top : top + 48 : factor, left : left + 96 : factor].astype(float) / 255
        np.testing.assert_allclose(pair[:, :12], batch["image"][number], atol=0.5 / 255 + 1e-6)
        np.testing.assert_allclose(pair[:, 12:], outputs.reconstruction_BHWC[number], atol=0.5 / 255 + 1e-3)
    assert (picture_HWC[gap + cell_height :, gap + 2 * cell_width :] == summaries.GREY).all()


@pytest.mark.parametrize(
    ("count", "size", "channels", "shape"),
    [
        (1, 28, 1, (64, 120, 1)),
        (3, 32, 3, (40, 208, 3)),
        (40, 28, 1, (4 + 4 * 60, 4 + 4 * 116, 1)),
        (16, 224, 3, (232, 908, 3)),
        (5, 1024, 3, (1032, 2056, 3)),
    ],
)
def test_sizes_of_pictures(count: int, size: int, channels: int, shape: tuple[int, ...]) -> None:
    images_NHWC = np.full((count, size, size, channels), 2.0)
    assert summaries.side_by_side(images_NHWC, images_NHWC).shape == shape


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    config = configured()
    net = built(config)
    transform = net.class_capsules.transform_parts[0]
    transform.assign(tf.fill(transform.shape, np.nan))
    board = board_for(tmp_path, config, net)
    board.train(10, {**TRAIN, "images_per_second": float("nan"), "gradient_norm": float("inf")})
    board.observe(10, batch_of(config))
    board.close()
    found = {value.tag: tf.make_ndarray(value.tensor) for _, value in values_in(tmp_path)}
    assert {"speed/images_per_second", "train/gradient_norm"}.isdisjoint(found)
    assert found["loss/total"] == np.float32(0.8)
    numbers = [array for array in found.values() if array.dtype.kind == "f"]
    assert all(np.isfinite(array).all() for array in numbers)
    gone = [f"routing/class_capsules/entropy_iteration_{r}" for r in (2, 3)] + [
        "capsules/class_capsules/parent_activations"
    ]
    assert set(gone).isdisjoint(found)
    assert tf.io.decode_png(found["pictures/reconstructions"][2]).shape[-1] == 1


def test_a_look_changes_neither_weights_nor_random_numbers(tmp_path: Path) -> None:
    config = configured()
    net = built(config)

    def draw(look: bool) -> list[Any]:
        random.seed(5)
        np.random.seed(5)
        tf.random.set_seed(5)
        if look:
            observed(tmp_path, config, net)
        return [random.random(), np.random.random(), float(tf.random.uniform([])), net(batch_of(config)["image"])[0]]

    before = [variable.numpy() for variable in net.variables]
    without, with_look = draw(False), draw(True)
    assert without[:3] == with_look[:3]
    np.testing.assert_array_equal(without[3], with_look[3])
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_look_has_no_collective_and_assigns_nothing() -> None:
    config = configured()
    batch = batch_of(config)
    graph = summaries.make_look(built(config)).get_concrete_function(batch["image"], batch["label"]).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    kinds = {node.op for node in nodes}
    assert "Conv2D" in kinds
    assert not {kind for kind in kinds if re.search("Horovod|Collective|Assign|Random|PyFunc", kind)}


def test_a_batch_smaller_than_the_records_to_observe(tmp_path: Path) -> None:
    config = configured(log__observe_records=100)
    parents = observed(tmp_path, config, built(config))["capsules/class_capsules/parent_activations"]
    assert parents[:, 2].sum() == 8 * CLASSES


def said(folder: Path) -> list[tuple[int, str]]:
    return [(step, value.tag) for step, value in values_in(folder) if value.tag in SAID_ONCE]


def test_the_configuration_is_said_once_and_again_where_it_changed(tmp_path: Path) -> None:
    config = configured()
    net = built(config)

    def part(config: RunConfig, *steps: int) -> None:
        board = board_for(tmp_path, config, net)
        for step in steps:
            board.train(step, TRAIN)
        board.close()

    part(config, 10, 20)
    part(config, 30)
    assert said(tmp_path) == [(10, "run/config"), (10, "custom_scalars__config__")]
    part(configured(data__readers=7), 40)
    assert said(tmp_path)[2:] == [(40, "run/config")]
    summaries.take_back(tmp_path, 0)
    part(config, 10)
    assert said(tmp_path) == [(10, "run/config"), (10, "custom_scalars__config__")]


def test_the_configuration_as_text() -> None:
    config = configured(data__uri="a_b|c")
    text = summaries.config_text(config, built(config), load_index("embedded"))
    sections = dict(re.findall(r"#### (\S+)\n\n(.*?)(?:\n\n|$)", text, re.DOTALL))
    lines = [(section, line) for section, table in sections.items() for line in table.split("\n")]
    rows = {(section, *line.strip("| ").split(" | ")[:2]) for section, line in lines}
    assert ("model", "classes", "**4**") in rows
    assert ("model.routing", "iterations", "3") in rows
    assert ("data", "uri", r"**a\_b\|c**") in rows
    assert ("run", "seed", "0") in rows
    assert ("data", "readers", "0") in rows
    assert all(re.match(r"\|.*\|.*\|.*\|$", line) for _, line in lines)


def test_each_chart_of_the_layout_finds_its_tags(tmp_path: Path) -> None:
    config = configured()
    board = board_for(tmp_path, config, built(config))
    board.train(10, TRAIN)
    board.test(10, TEST)
    board.observe(10, batch_of(config))
    board.close()
    values = {value.tag: value for _, value in values_in(tmp_path)}
    layout = Layout.FromString(tf.make_ndarray(values["custom_scalars__config__"].tensor).item())
    charts = {
        chart.title: {tag for pattern in chart.multiline.tag for tag in values if re.match(pattern, tag)}
        for category in layout.category
        for chart in category.chart
    }
    routing = "routing/class_capsules"
    assert charts == {
        "accuracy": {"accuracy/train", "accuracy/test"},
        "loss": {"loss/total", "loss/total_test"},
        "terms of the loss": {"loss/margin", "loss/margin_test", "loss/reconstruction", "loss/reconstruction_test"},
        "class_capsules: entropy of the couplings": {f"{routing}/entropy_iteration_{r}" for r in (1, 2, 3)},
        "class_capsules: effective parents": {f"{routing}/effective_parents_iteration_{r}" for r in (1, 2, 3)},
    }


def test_taking_back_an_evaluation_that_will_be_made_again(tmp_path: Path) -> None:
    config = configured()
    board = board_for(tmp_path, config, built(config))
    board.train(10, TRAIN)
    board.test(10, TEST)
    board.train(20, TRAIN)
    board.test(20, TEST)
    board.train(30, TRAIN)
    board.close()
    summaries.take_back(tmp_path, 20, evaluated_step=10)
    found = Counter((step, value.tag) for step, value in values_in(tmp_path) if value.tag not in SAID_ONCE)
    kept = [(step, tag) for step in (10, 20) for tag in TRAIN_TAGS] + [(10, tag) for tag in TEST_TAGS]
    assert found == Counter(kept)


def test_a_picture_of_scenes_shows_both_reconstructions() -> None:
    rng = np.random.default_rng(0)
    images, both = rng.random((5, 28, 28, 1)), rng.random((5, 2, 28, 28, 1))
    picture = summaries.side_by_side(images, both)
    gap = summaries.GAP
    cell = 3 * 56 + gap  # 28 pixels as 56
    assert picture.shape == (gap + 2 * (56 + gap), gap + 4 * cell, 1)
    shown = picture[gap : gap + 56 : 2, gap + cell : gap + cell + 3 * 56 : 2] / 255
    expected = np.concatenate([images[1], both[1, 0], both[1, 1]], axis=1)
    np.testing.assert_allclose(shown, expected, atol=0.5 / 255 + 1e-9)
