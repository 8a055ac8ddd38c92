"""A trained run as a person's Python sees it: checkpoint, export, evaluation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.harness import records, train

THREE_LINES = """
import trainer
model = trainer.load({path!r})
print(model.classify({image!r}))
"""

ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
assert "trainer" not in sys.modules
model = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = np.load(sys.argv[2])
for batch in (1, 3, len(images)):
    scores = model(images=tf.constant(images[:batch]))
print(json.dumps(scores["class_scores"].numpy().tolist()))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "run"
    train(folder, fields={"train.epochs": "1.5"})
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "exported"
    subprocess.run([sys.executable, "-m", "trainer", "export", str(run), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    import tensorflow as tf

    from trainer.config import RunConfig
    from trainer.data.index import load_index
    from trainer.data.pipeline import test_batches

    batch = next(iter(test_batches(RunConfig(), load_index("embedded"), 0, 1)))
    return np.asarray(tf.cast(tf.round(batch["image"] * 255), tf.uint8))[:20]


def test_three_lines_classify_an_image(run: Path, exported: Path, images: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.fromarray(images[0, :, :, 0]).save(picture)
    answers = []
    for path in (run, exported):
        program = THREE_LINES.format(path=str(path), image=str(picture))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        answers.append(done.stdout.splitlines()[-1])
    assert answers[0] == answers[1]
    assert re.fullmatch(r".+ \(0\.\d\d\)", answers[0])


def test_an_export_works_without_the_package_at_any_batch_size(
    run: Path, exported: Path, images: np.ndarray, tmp_path: Path
) -> None:
    import json

    import trainer

    np.save(tmp_path / "images.npy", images)
    (tmp_path / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "alone.py"), str(exported), str(tmp_path / "images.npy")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ours = trainer.load(run).scores_BJ(images)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), ours, atol=1e-6)  # another graph, float32


def test_evaluate_gives_the_score_of_training_at_any_number_of_ranks(run: Path) -> None:
    best = max(record["accuracy"] for record in records(run, "test"))
    for launch in ([], ["launch", "--ranks", "2"]):
        command = [sys.executable, "-m", "trainer", *launch, "evaluate", str(run)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"test accuracy: {100 * best:.2f} % of 2000" in done.stdout


def test_a_network_alone_in_a_notebook() -> None:
    import trainer

    net = trainer.build(trainer.RunConfig().model)
    outputs = net(np.zeros([2, 28, 28, 1], np.float32))
    assert outputs.class_scores_BJ.shape == (2, 10)
