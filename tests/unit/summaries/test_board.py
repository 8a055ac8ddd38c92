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

from tests.unit.summaries.boards import (
    CHILDREN,
    CLASSES,
    LAYERS,
    RECORDS,
    SAID_ONCE,
    TEST,
    TEST_TAGS,
    TRAIN,
    TRAIN_TAGS,
    UNEXPLAINED,
    batch_of,
    board_for,
    built,
    configured,
    observed,
    values_in,
)
from trainer import summaries
from trainer.summaries import pictures, tags
from trainer.summaries.look import make_look


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


def test_a_test_has_its_confusion_as_a_picture(tmp_path: Path) -> None:
    config = configured(log__observe_every_steps=10)
    board = board_for(tmp_path, config, built(config))
    for step, right in ((10, 3), (20, 30)):
        board.test(step, TEST, right * np.eye(10, dtype=np.int64) + 1)
    board.close()
    drawn = [
        tf.io.decode_png(tf.make_ndarray(value.tensor)[2]).numpy()
        for _, value in values_in(tmp_path)
        if value.tag == tags.CONFUSION.name
    ]
    assert len(drawn) == 2
    blue = [float((picture_HWC[..., 2].astype(int) - picture_HWC[..., 0] > 60).mean()) for picture_HWC in drawn]
    assert blue[1] > 0.02  # the diagonal
    assert (drawn[0] != drawn[1]).mean() > 0.01


@pytest.mark.parametrize(("every", "steps"), [(10, [10, 20, 31]), (1, [10, 15, 20, 29, 31]), (0, [])])
def test_confusion_is_drawn_no_more_often_than_other_pictures(tmp_path: Path, every: int, steps: list[int]) -> None:
    config = configured(log__observe_every_steps=every)
    board = board_for(tmp_path, config, built(config))
    for step in (10, 15, 20, 29, 31):
        board.test(step, TEST, np.eye(10, dtype=np.int64))
    board.close()
    assert [step for step, value in values_in(tmp_path) if value.tag == tags.CONFUSION.name] == steps


def test_labels_of_class_and_angle_have_their_names(tmp_path: Path) -> None:
    config = configured(data__rotations=2, model__classes=20)
    board = board_for(tmp_path, config, built(config))
    board.test(10, TEST, np.eye(20, dtype=np.int64))
    board.close()
    assert tags.CONFUSION.name in {value.tag for _, value in values_in(tmp_path)}


def test_every_tag_is_explained(tmp_path: Path) -> None:
    config = configured(model__routing__leaky=True)
    board = board_for(tmp_path, config, built(config))
    for step in (10, 20):
        board.train(step, TRAIN)
        board.test(step, TEST, np.eye(10, dtype=np.int64))
        board.observe(step, batch_of(config))
    board.close()
    described = Counter(value.tag for _, value in values_in(tmp_path) if value.metadata.summary_description)
    tags = {value.tag for _, value in values_in(tmp_path)} - UNEXPLAINED
    assert described == dict.fromkeys(tags, 1)
    assert not any("{" in value.metadata.summary_description for _, value in values_in(tmp_path))


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("decoder", ["16", ""])
def test_tags_of_a_look(tmp_path: Path, leaky: bool, decoder: str) -> None:
    config = configured(model__routing__leaky=leaky, model__decoder__hidden=decoder, model__routing__iterations=2)
    names = ["entropy", "effective_parents", *(["unassigned"] if leaky else [])]
    expected = {f"routing/class_capsules/{name}_iteration_{iteration}" for name in names for iteration in (1, 2)}
    measures = ["divergence", "winner_changed", "agreement", "agreement_of_all"]
    measures += ["gradient_children", "gradient_parents"]
    expected |= {f"routing/class_capsules/{name}" for name in measures} | {"routing/alarm"}
    sides = ["child_activations", "parent_activations", "dead_children", "dead_parents"]
    sides += ["always_on_children", "always_on_parents", "silent_children", "silent_parents"]
    expected |= {f"capsules/class_capsules/{name}" for name in sides}
    expected |= {f"weights/{layer}" for layer in LAYERS if decoder or "decoder" not in layer}
    expected |= {"pictures/couplings"} | ({"pictures/reconstructions", "pictures/dimensions"} if decoder else set())
    assert set(observed(tmp_path, config, built(config))) - set(SAID_ONCE) == expected


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
    divergence_NI = (coupling_RNIJ[-1] * np.log(np.maximum(coupling_RNIJ[-1] * (CLASSES + leaky), 1e-300))).sum(-1)
    divergence = float(found["routing/class_capsules/divergence"])
    assert divergence == pytest.approx(divergence_NI.mean() / np.log(CLASSES + leaky), rel=1e-3)
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
    factor, gap = 4, pictures.GAP  # 12 pixels as 48, below 56
    cell_height, cell_width = 48 + gap, 96 + gap
    assert picture_HWC.shape == (int(height), int(width), 1) == (gap + 2 * cell_height, gap + 4 * cell_width, 1)
    for number in range(RECORDS):
        row, column = divmod(number, 4)
        top, left = gap + row * cell_height, gap + column * cell_width
        pair = picture_HWC[top : top + 48 : factor, left : left + 96 : factor].astype(float) / 255
        np.testing.assert_allclose(pair[:, :12], batch["image"][number], atol=0.5 / 255 + 1e-6)
        np.testing.assert_allclose(pair[:, 12:], outputs.reconstruction_BHWC[number], atol=0.5 / 255 + 1e-3)
    assert (picture_HWC[gap + cell_height :, gap + 2 * cell_width :] == pictures.GREY).all()


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
    gone = [f"routing/class_capsules/{name}" for name in ("entropy_iteration_2", "entropy_iteration_3", "divergence")]
    gone += ["capsules/class_capsules/parent_activations"]
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
    graph = make_look(config, built(config)).get_concrete_function(batch["image"], batch["label"]).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    kinds = {node.op for node in nodes}
    assert "Conv2D" in kinds
    assert not {kind for kind in kinds if re.search("Horovod|Collective|Assign|Random|PyFunc", kind)}


def test_a_batch_smaller_than_the_records_to_observe(tmp_path: Path) -> None:
    config = configured(log__observe_records=100)
    parents = observed(tmp_path, config, built(config))["capsules/class_capsules/parent_activations"]
    assert parents[:, 2].sum() == 8 * CLASSES


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
