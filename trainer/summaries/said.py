"""What is said once of a run: its configuration, hyperparameters, and the layout of the Custom Scalars page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import summary_v2 as hparams

from trainer import config as configuration
from trainer import configs, eventfiles
from trainer.config import RunConfig
from trainer.data.index import Index
from trainer.model.capsules import CapsuleLayer
from trainer.model.network import CapsNet
from trainer.summaries import tags

COMPARED = (
    "seed",
    "model.routing.algorithm",
    "model.routing.iterations",
    "model.head.kind",
    "model.head.transform",
    "model.head.initial_scale",
    "model.primary.types",
    "model.primary.pose",
    "loss.kind",
    "optimizer.kind",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "train.epochs",
    "train.global_batch_size",
    "train.precision",
)
"""Fields that have a column of their own on the HParams page; whatever else a run changes stands in one."""


def unsaid(folder: Path, values: list[Any]) -> list[Any]:
    """Those of ``values`` that the event files in ``folder`` do not say already, as the last word on their tags."""
    tags = {value.tag for value in values}
    last: dict[str, Any] = {}
    for path in eventfiles.paths(folder):
        for event in eventfiles.events(path):
            last.update((value.tag, value.tensor) for value in event.summary.value if value.tag in tags)
    return [value for value in values if last.get(value.tag) != value.tensor]


def config_text(config: RunConfig, network: CapsNet, index: Index) -> str:
    """The run in Markdown: a line about it, and its configuration, a table for each section."""
    split = index.splits[config.data.train_split]
    default = RunConfig()
    lines = [
        f"**{config.recipe or 'no recipe'}**: {network.count_params():,} parameters; data set {index.name}, "
        f"{config.model.classes} classes, {split.records:,} training records. "
        "Bold: not the default. `config.json` in the run's folder holds the same.",
    ]
    sections: dict[str, list[tuple[str, FieldInfo]]] = {}
    for path, field in configuration.leaves():
        sections.setdefault(path.rpartition(".")[0], []).append((path, field))
    for section, leaves in sections.items():  # not one table of whole paths: TensorBoard breaks long words in it
        lines += ["", f"#### {section or 'run'}", "", "| field | value | meaning |", "|---|---|---|"]
        for path, field in leaves:
            value = configuration.value_at(config, path)
            shown = ", ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
            bold = "**" if value != configuration.value_at(default, path) and shown else ""
            name = path.rpartition(".")[2]
            lines.append(f"| {_cell(name)} | {bold}{_cell(shown)}{bold} | {_cell(field.description or '')} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text as it stands in a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def changes(config: RunConfig) -> str:
    """What a run changes of its recipe, as it is typed: 'model.routing.iterations=2 seed=1'."""
    recipe = configs.load(config.recipe) if config.recipe in configs.names() else RunConfig()
    changed = configuration.differences(recipe, config)
    return " ".join(f"{path}={_typed(new)}" for path, _, new, neutral in changed if path != "recipe" and not neutral)


def hyperparameters(run: str, config: RunConfig, network: CapsNet, index: Index) -> list[Any]:
    """For the HParams page, where ``run`` is the name of its line: what it is, and which values tell how it did."""
    values: dict[str, Any] = {
        "recipe": config.recipe or "none",
        "changes": changes(config) or "none",
        "data": index.name,
        "parameters": network.count_params(),
        **{path: configuration.value_at(config, path) for path in COMPARED},
    }
    told = [tags.TEST["accuracy"], tags.TEST["loss"], tags.TRAIN["accuracy"], tags.TRAIN["images_per_second"]]
    experiment = hparams.hparams_config_pb(
        [hparams.HParam(name) for name in values],
        [hparams.Metric(tag.name, description=tag.description) for tag in told],
        time_created_secs=0,  # the same bytes in every part of a run, so that it is said once
    )
    start = hparams.hparams_pb(values, trial_id=run, start_time_secs=0)
    return [*experiment.value, *start.value]


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def layout(network: CapsNet) -> Layout:
    """The Custom Scalars page: what belongs together in one chart, what matters first."""
    layers = [layer.name for layer in network.layers if isinstance(layer, CapsuleLayer)]
    learns = [
        _chart("accuracy", "accuracy/(train|test)"),
        _chart("loss", "loss/total(_test)?"),
        _chart("terms of the loss", "loss/(?!total).*"),
        _chart("learning rate", tags.TRAIN["learning_rate"].name),
    ]
    lives = [_chart("signs of dying", tags.ALARM.name)]
    for layer in layers:
        of = f"routing/{re.escape(layer)}"
        lives += [
            _chart(f"{layer}: divergence of the couplings from uniform ones", f"{of}/divergence"),
            _chart(f"{layer}: entropy of the couplings", f"{of}/entropy_iteration_.*"),
            _chart(f"{layer}: effective parents", f"{of}/effective_parents_iteration_.*"),
            _chart(f"{layer}: what routing changes", f"{of}/(winner|favourite)_changed"),
            _chart(f"{layer}: agreement with the winner", f"{of}/agreement(_of_all)?"),
            _chart(f"{layer}: gradient through the routing", f"{of}/gradient_(children|parents)"),
            _chart(f"{layer}: dead, silent and always on", f"capsules/{re.escape(layer)}/(dead|silent|always_on)_.*"),
        ]
    costs = [
        _chart("images per second", tags.TRAIN["images_per_second"].name),
        _chart("share of the time that waited for input", "speed/input_wait.*"),
        _chart("memory, MiB", "memory/.*"),
    ]
    norms = [_chart("gradients", "gradients/.*"), _chart("weights", "weights/.*")]
    return Layout(
        category=[
            Category(title="Does it learn?", chart=learns),
            *([Category(title="Is routing alive?", chart=lives)] if layers else []),
            Category(title="What does it cost?", chart=costs, closed=True),
            Category(title="Norms by layer", chart=norms, closed=True),
        ]
    )


def _chart(title: str, pattern: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[pattern + "$"]))
