"""An export in the hands of a stranger: another process, another folder, and nothing of this package.

Axes: B batch, H W image, C channels, J classes.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from tests.integration.harness import PATIENCE

SINGLE = 1e-6  # float32: the same sums in other orders, of scores below 1

ALONE = """
import sys
sys.path.insert(0, {site!r})
try:
    import trainer
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is within reach")
"""

KERAS = """
import json, keras, numpy as np
model = keras.models.load_model("model.keras")
images = np.load("images.npy")
found = [{name: value.tolist() for name, value in model.predict(images[:batch], verbose=0).items()}
         for batch in (1, 2, 7)]
json.dump(found, open("found.json", "w"))
"""

SAVED_MODEL = """
import json, numpy as np, tensorflow as tf
model = tf.saved_model.load(".").signatures["serving_default"]
images = np.load("images.npy")
found = [{name: value.numpy().tolist() for name, value in model(images=tf.constant(images[:batch])).items()}
         for batch in (1, 2, 7)]
json.dump(found, open("found.json", "w"))
"""

TRAINING = """
import keras, numpy as np, tensorflow as tf
model = keras.models.load_model("model.keras")
images, labels = np.load("images.npy"), np.load("labels.npy")
scores = keras.Model(model.inputs, model.output["class_scores"])
with tf.GradientTape() as tape:
    loss = tf.reduce_mean(tf.square(scores(images) - labels))
for weight, gradient in zip(scores.trainable_weights, tape.gradient(loss, [w.value for w in scores.trainable_weights])):
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), weight.path
assert {w.path for w in model.weights} - {w.path for w in scores.weights} == {
    w.path for w in model.weights if w.path.startswith("decoder")}
scores.compile(keras.optimizers.Adam(1e-3), loss="mse")
before = scores.evaluate(images, labels, verbose=0)
scores.fit(images, labels, epochs=5, batch_size=7, verbose=0)
assert scores.evaluate(images, labels, verbose=0) < before
model.compile("adam", loss={"class_scores": "mse"})  # the whole model as it is
assert np.isfinite(model.fit(images, {"class_scores": labels}, batch_size=7, verbose=0).history["loss"]).all()
scores.save("again.keras")
np.testing.assert_allclose(keras.models.load_model("again.keras")(images), scores(images), atol=1e-6)
"""


@pytest.fixture(scope="module")
def run(small_run: Path) -> Path:
    return small_run


@pytest.fixture(scope="module")
def exported(small_export: tuple[Path, str]) -> tuple[Path, str]:
    """(the folder, what was printed)"""
    return small_export


def export(run: Path, folder: Path, *options: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "trainer", "export", str(run), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed packages, all but this one."""
    folder = tmp_path_factory.mktemp("site")
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("trainer", "capsnet", "__editable__")):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def elsewhere(exported: tuple[Path, str], run: Path, tmp_path: Path) -> Path:
    """A copy of the export, with seven images."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(exported[0], folder)
    np.save(folder / "images.npy", seven_images())
    np.save(folder / "labels.npy", np.eye(10, dtype=np.float32)[:7])
    return folder


def seven_images() -> np.ndarray:
    import tensorflow as tf

    from trainer.config import RunConfig
    from trainer.data.index import load_index
    from trainer.data.pipeline import test_batches

    batch = next(iter(test_batches(RunConfig(), load_index("embedded"), 0, 1)))
    return np.asarray(tf.cast(tf.round(batch["image"] * 255), tf.uint8))[:7]


def alone(site: Path, folder: Path, program: str) -> str:
    """Runs a program in the folder, in a Python that has no way to this package; returns what it printed."""
    command = [sys.executable, "-I", "-S", "-c", ALONE.format(site=str(site)) + program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", [KERAS, SAVED_MODEL], ids=["keras", "saved_model"])
def test_scores_are_the_networks_at_any_batch_size(program: str, run: Path, elsewhere: Path, site: Path) -> None:
    from trainer import checkpoint
    from trainer import config as configuration
    from trainer.weights import network_of

    best = checkpoint.choose(run / "checkpoints", "best", print)
    config = configuration.validated(json.loads(best.config), "the run")
    alone(site, elsewhere, program)
    ours = network_of(config, best)(np.load(elsewhere / "images.npy") / np.float32(255))
    expected = {
        "class_scores": ours.class_scores_BJ,
        "label": np.argmax(ours.class_scores_BJ, axis=-1),
        "poses": ours.poses_BJQ,
        "reconstruction": ours.reconstruction_BHWC,
    }
    found = json.loads((elsewhere / "found.json").read_text())
    for batch, outputs in zip((1, 2, 7), found, strict=True):
        assert set(outputs) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value[:batch], atol=SINGLE, err_msg=f"{name}, batch {batch}")


def test_the_keras_model_can_be_trained_on(elsewhere: Path, site: Path) -> None:
    alone(site, elsewhere, TRAINING)


def test_what_readme_says_works(elsewhere: Path, site: Path) -> None:
    text = (elsewhere / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    classes = json.loads((elsewhere / "classes.json").read_text())
    for program in (blocks[0] + blocks[1], blocks[2]):  # the second goes on from the first
        assert set(alone(site, elsewhere, program).splitlines()) & set(classes)


def test_what_is_printed(exported: tuple[Path, str], run: Path) -> None:
    folder, printed = exported
    lines = printed.splitlines()
    assert lines[0].startswith(f"{run}: step ")
    assert [line.split()[0] for line in lines[1:]] == ["model.keras", "SavedModel", "README.md", "exported"]
    assert "exists; choose another folder" in export(run, folder, code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_nothing(number: signal.Signals, run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "export", str(run), str(tmp_path / "model")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / ".writing-model/model.keras").exists():  # in the midst of it
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, errors
    assert errors == f"capsnet: {tmp_path / 'model'}: stopped, nothing was written\n"
    assert list(tmp_path.iterdir()) == []
