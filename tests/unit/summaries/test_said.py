"""What is said once of a run: configuration, hyperparameters, layout."""

from __future__ import annotations

import re
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.unit.summaries.boards import (
    LAYERS,
    SAID_ONCE,
    TEST,
    TRAIN,
    batch_of,
    board_for,
    built,
    configured,
    values_in,
)
from trainer import configs, summaries
from trainer.config import RunConfig, with_overrides
from trainer.data.index import load_index
from trainer.summaries import said


def said_in(folder: Path) -> list[tuple[int, str]]:
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
    once = [(10, tag) for tag in SAID_ONCE]
    assert said_in(tmp_path) == once
    part(configured(data__readers=7), 40)
    assert said_in(tmp_path)[len(once) :] == [(40, "run/config")]
    summaries.take_back(tmp_path, 0)
    part(config, 10)
    assert said_in(tmp_path) == once


def test_the_configuration_as_text() -> None:
    config = configured(data__uri="a_b|c")
    text = said.config_text(config, built(config), load_index("embedded"))
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
    board.train(10, {**TRAIN, "peak_memory_mib": 5.0}, {"primary": 1.0, "stem/conv_0": 2.0})
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
        "learning rate": {"train/learning_rate"},
        "signs of dying": {"routing/alarm"},
        "class_capsules: divergence of the couplings from uniform ones": {f"{routing}/divergence"},
        "class_capsules: entropy of the couplings": {f"{routing}/entropy_iteration_{r}" for r in (1, 2, 3)},
        "class_capsules: effective parents": {f"{routing}/effective_parents_iteration_{r}" for r in (1, 2, 3)},
        "class_capsules: what routing changes": {f"{routing}/winner_changed", f"{routing}/favourite_changed"},
        "class_capsules: agreement with the winner": {f"{routing}/agreement", f"{routing}/agreement_of_all"},
        "class_capsules: gradient through the routing": {f"{routing}/gradient_children", f"{routing}/gradient_parents"},
        "class_capsules: dead, silent and always on": {
            f"capsules/class_capsules/{what}_{side}"
            for what in ("dead", "silent", "always_on")
            for side in ("children", "parents")
        },
        "images per second": {"speed/images_per_second"},
        "share of the time that waited for input": {"speed/input_wait"},
        "memory, MiB": {"memory/peak_mib"},
        "gradients": {"gradients/primary", "gradients/stem/conv_0"},
        "weights": {f"weights/{layer}" for layer in LAYERS},
    }
    assert len(charts) == sum(len(category.chart) for category in layout.category)


def test_hyperparameters_are_what_the_run_is(tmp_path: Path) -> None:
    config = configured(seed=5, optimizer__learning_rate=0.25, model__routing__leaky=True)
    board = board_for(tmp_path, config, built(config))
    board.train(10, TRAIN)
    board.close()
    values = {value.tag: value for _, value in values_in(tmp_path)}
    content = values["_hparams_/session_start_info"].metadata.plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.group_name == tmp_path.name  # a line of the page has the name of its run
    found = start.hparams
    numbers = {name: found[name].number_value for name in ("seed", "optimizer.learning_rate", "parameters")}
    assert numbers == {"seed": 5, "optimizer.learning_rate": 0.25, "parameters": built(config).count_params()}
    assert found["model.routing.algorithm"].string_value == "dynamic"
    changes = found["changes"].string_value.split()
    assert {"seed=5", "optimizer.learning_rate=0.25", "model.routing.leaky=True", "model.stem.channels=8"} <= set(
        changes
    )
    content = values["_hparams_/experiment"].metadata.plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {info.name for info in experiment.hparam_infos} == set(found)
    assert "accuracy/test" in {info.name.tag for info in experiment.metric_infos}


def test_what_a_recipe_has_is_no_change() -> None:
    quick = configs.load("quick")
    assert said.changes(quick) == ""
    assert said.changes(with_overrides(quick, {"log.every_steps": "3"})) == ""  # changes nothing that is learned
    assert said.changes(with_overrides(quick, {"model.stem.channels": "8,8,8"})) == "model.stem.channels=8,8,8"
