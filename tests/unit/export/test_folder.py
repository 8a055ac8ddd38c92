"""The folder that ``capsnet export`` makes, and what it tells. Axes: B batch, H W image, C channels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.export.test_keras_model import LAYERS, SMALL, trained
from trainer import checkpoint, configs
from trainer import config as configuration
from trainer.checkpoint import State
from trainer.config import RunConfig, with_overrides
from trainer.errors import CapsnetError, CheckpointError, ConfigError, DataError
from trainer.export import keras_model
from trainer.export.folder import export
from trainer.export.routing import ROUTES
from trainer.weights import tensors_of, weights_of

TEN = {"model.classes": 10}
WHOLE = {"README.md", "classes.json", "run.json"}
SAVED = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}


def of(**changes: object) -> RunConfig:
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return with_overrides(configs.load("quick"), SMALL | TEN | fields)


def run_of(config: RunConfig, folder: Path) -> Path:
    """A run directory with one checkpoint, of a network that ``trained`` made."""
    net = trained(config)
    state = State(step=1234, evaluated_step=1234, test_accuracy=0.875)
    checkpoint.save(folder / "checkpoints", state, configuration.dump(config), tensors_of(weights_of(net)))
    (folder / "config.json").write_text(configuration.dump(config))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(of(), tmp_path_factory.mktemp("export") / "a-run")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_both(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    export(run, tmp_path / "deeper" / "model", say=said.append)
    folder = tmp_path / "deeper" / "model"
    assert names(folder) == WHOLE | SAVED | {"model.keras"}
    assert names(folder.parent) == {"model"}
    assert len(json.loads((folder / "classes.json").read_text())) == 10
    assert json.loads((folder / "run.json").read_text())["model"]["image_size"] == 14
    size = (folder / "model.keras").stat().st_size / 1e6
    assert said[1].startswith(f"model.keras  {size:,.1f} MB, scores within ")
    differences = [float(number) for line in said[1:3] for number in re.findall(r"within (\S+) of", line)]
    assert len(differences) == 2
    assert max(differences) < 1e-5  # of float32 behind three iterations


@pytest.mark.parametrize(("formats", "files"), [("keras", {"model.keras"}), ("saved_model", SAVED)])
def test_one_of_them(formats: str, files: set[str], run: Path, tmp_path: Path) -> None:
    import trainer

    export(run, tmp_path / "model", formats=formats, say=lambda line: None)
    assert names(tmp_path / "model") == WHOLE | files
    text = (tmp_path / "model/README.md").read_text()
    assert ("model.keras" in text) == (formats == "keras")
    assert ("saved_model" in text) == (formats == "saved_model")
    images_BHWC = np.random.default_rng(2).integers(0, 256, [3, 14, 14, 1], np.uint8)
    ours = trainer.load(run).scores_BJ(images_BHWC)
    np.testing.assert_allclose(trainer.load(tmp_path / "model").scores_BJ(images_BHWC), ours, atol=1e-5)  # float32


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float64"])
def test_any_precision_is_exported_in_float32(precision: str, tmp_path: Path) -> None:
    config = of(train__precision=precision)
    run = run_of(config, tmp_path / "run")
    export(run, tmp_path / "model", say=lambda line: None)
    model = keras.models.load_model(tmp_path / "model/model.keras")
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    images_BHWC = np.random.default_rng(2).integers(0, 256, [3, 14, 14, 1], np.uint8)
    theirs = model(images_BHWC)
    for name, value in signature(images=tf.constant(images_BHWC)).items():
        assert theirs[name].dtype == value.dtype
        np.testing.assert_allclose(theirs[name], value, atol=1e-5)  # float32
    assert theirs["class_scores"].dtype == tf.float32
    assert f"trained in {precision}" in (tmp_path / "model/README.md").read_text()


OUTPUTS = {
    "capsules": {},
    "no decoder": {"model__decoder__hidden": ""},
    "control": {"model__head__kind": "conv_parameters", "model__decoder__hidden": ""},
    "control of logits": {
        "model__head__kind": "conv_parameters",
        "model__head__scores": "linear",
        "loss__kind": "cross_entropy",
    },
    "crop": {"data__augment__resize": "crop", "model__channels": 3},
    "whole": {"data__augment__resize": "whole"},
    "resized": {"data__augment__resize": "random_resized_crop"},
    "two in one image": {"data__overlap__enabled": True, "data__overlap__shift": 1, "data__augment__shift": 0},
    "em": {"model__routing__algorithm": "em", "loss__kind": "cross_entropy"},
    "inverted": {"model__routing__algorithm": "inverted"},
    "self_routing": {"model__routing__algorithm": "self_routing"},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_readme_says_what_the_models_give(name: str, tmp_path: Path) -> None:
    config = of(**OUTPUTS[name])
    export(run_of(config, tmp_path / "run"), tmp_path / "model", say=lambda line: None)
    text = (tmp_path / "model/README.md").read_text()
    assert "step 1,234 of the run `run`. Test accuracy there: 87.50 %" in text
    told = re.findall(r"^\| `(\w+)` \| (\w+) \[(.+?)\] \|", text, re.MULTILINE)
    assert ("In each image 2 classes are present" in text) == config.data.overlap.enabled
    size, channels = config.model.image_size, config.model.channels
    assert f"uint8 [B, H, W, {channels}]" in text
    height, width = (size, size) if config.data.augment.resize == "none" else (size + 3, size + 5)
    images_BHWC = np.random.default_rng(2).integers(0, 256, [2, height, width, channels], np.uint8)
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for given in (
        keras.models.load_model(tmp_path / "model/model.keras")(images_BHWC),
        signature(images=tf.constant(images_BHWC)),
    ):
        shapes = {key: (value.dtype.name, ", ".join(["B", *map(str, value.shape[1:])])) for key, value in given.items()}
        assert {key: (dtype, shape) for key, dtype, shape in told} == shapes
        if "0 to 1" in text.partition("`class_scores`")[2].partition("\n")[0]:
            assert 0 <= np.min(given["class_scores"]) <= np.max(given["class_scores"]) <= 1


def test_layers_are_counted_among_the_votes(tmp_path: Path) -> None:
    """14 pixels: 7 at the stem, 5 primary, 3 and 1 windows of 9 x 4 and 9 x 3 children; float32."""
    fields = {name.replace(".", "__"): value for name, value in LAYERS.items()}
    config = of(**fields, model__head__pose=6000)
    votes = 9 * 36 * 3 * 4 + 1 * 27 * 4 * 4 + 4 * 10 * 6000
    export(run_of(config, tmp_path / "run"), tmp_path / "model", formats="keras", say=lambda line: None)
    assert f"in memory: {4 * votes / 1e6:.1f} MB a record" in (tmp_path / "model/README.md").read_text()


def test_what_cannot_be_a_keras_model_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTES, "dynamic")
    said: list[str] = []
    export(run, tmp_path / "model", say=said.append)
    assert "no Keras model: trainer/export/routing/ has no dynamic" in said
    assert names(tmp_path / "model") == WHOLE | SAVED
    with pytest.raises(ConfigError, match=r"no Keras model: .* has no dynamic; use --format saved_model"):
        export(run, tmp_path / "other", formats="keras", say=said.append)
    assert names(tmp_path) == {"model"}


def test_a_model_that_is_not_the_network_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = keras_model.build

    def wrong(config: RunConfig, net: keras.Model) -> keras.Model:
        model = build(config, net)
        model.get_layer("class_capsules_transform").kernel.assign_add(tf.fill([100, 4, 10, 6], 0.1))
        return model

    monkeypatch.setattr(keras_model, "build", wrong)
    with pytest.raises(CapsnetError, match=r"model\.keras: its scores differ by \S+ from the network's"):
        export(run, tmp_path / "model", say=lambda line: None)
    assert names(tmp_path) == set()


def test_what_is_called_off_at_the_last_moment_is_not_there(run: Path, tmp_path: Path) -> None:
    def call_off() -> None:
        assert names(tmp_path / ".writing-model") == WHOLE | {"model.keras"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "model", "best", "keras", lambda line: None, call_off)
    assert names(tmp_path) == set()


def test_refusals(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    for destination, message in (
        (tmp_path / "there", "exists; choose another"),
        (tmp_path / "file/model", "cannot be written"),
        (Path("gs://bucket/model"), "go to a local folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(run, destination, say=lambda line: None)
    with pytest.raises(CheckpointError, match="no checkpoint 5; there are last, best, 1234"):
        export(run, tmp_path / "model", "5", say=lambda line: None)
    with pytest.raises(CheckpointError, match="is this a run directory"):
        export(tmp_path, tmp_path / "model", say=lambda line: None)
    other = run_of(of(model__classes=7), tmp_path / "run")
    with pytest.raises(DataError, match="has 10 classes, the network 7"):
        export(other, tmp_path / "model", say=lambda line: None)
    assert names(tmp_path) == {"there", "file", "run"}
