"""A trained run, its export and a new network as a person's Python sees them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

THREE_LINES = """
import trainer
model = trainer.load({path!r})
print(model.classify({image!r}))
"""  # as in README


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    import tensorflow as tf

    from trainer.config import RunConfig
    from trainer.data.index import load_index
    from trainer.data.pipeline import test_batches

    batch = next(iter(test_batches(RunConfig(), load_index("embedded"), 0, 1)))
    return np.asarray(tf.cast(tf.round(batch["image"] * 255), tf.uint8))[:20]


def test_three_lines_classify_an_image(
    small_run: Path, small_export: tuple[Path, str], images: np.ndarray, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(images[0, :, :, 0]).save(picture)
    program = "".join(THREE_LINES.format(path=str(path), image=str(picture)) for path in (small_run, small_export[0]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    of_run, of_export = done.stdout.splitlines()[-2:]
    assert of_run == of_export
    assert re.fullmatch(r".+ \(0\.\d\d\)", of_run)


def test_a_network_alone_in_a_notebook() -> None:
    import trainer

    net = trainer.build(trainer.RunConfig().model)
    outputs = net(np.zeros([2, 28, 28, 1], np.float32))
    assert outputs.class_scores_BJ.shape == (2, 10)
