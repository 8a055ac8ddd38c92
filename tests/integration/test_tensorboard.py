"""A real TensorBoard reads runs over HTTP: one written by a board, and one by the trainer itself.

Both of TensorBoard's readers are asked: the fast one that it uses where it can, and the one in Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.integration import harness
from trainer import summaries
from trainer.config import RunConfig, with_overrides
from trainer.data.index import load_index
from trainer.model import network
from trainer.scoring.board import write as write_evaluation
from trainer.scoring.counts import Counts
from trainer.scoring.report import Subject, report

RUN = "small-20260101-120000"
SMALL = {
    "model.stem.channels": "4",
    "model.primary.types": "2",
    "model.decoder.hidden": "8",
    "model.routing.xla": "false",
    "log.observe_records": "8",
}
LAYERS = ("stem/conv_0", "primary", "class_capsules", "decoder/hidden_0", "decoder/pixels")
MEASURES = ("winner_changed", "favourite_changed", "agreement", "agreement_of_all", "gradient_children")
MEASURES += ("gradient_parents", "divergence")
DEATHS = ("dead", "silent", "always_on")
SIDES = ("children", "parents")
READERS = {"fast": "true", "python": "false"}


class TensorBoard:
    """Asks a server that runs at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: Any) -> bytes:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=harness.PATIENCE) as answer:
            body: bytes = answer.read()
        return body

    def json(self, path: str, **query: Any) -> Any:
        return json.loads(self.get(path, **query))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until what is asked for has been read from disk."""
        deadline = time.monotonic() + harness.PATIENCE
        while True:
            try:
                if condition():
                    return
            except urllib.error.HTTPError as error:
                if error.code not in (400, 404):  # what is not read yet is not found
                    raise
            assert time.monotonic() < deadline, "TensorBoard never read it"
            time.sleep(0.2)

    def points(self, run: str, tag: str) -> list[tuple[int, float]]:
        return [(step, value) for _, step, value in self.json("data/plugin/scalars/scalars", run=run, tag=tag)]

    def scalars(self, run: str, tag: str) -> dict[int, float]:
        points = self.points(run, tag)
        assert len(dict(points)) == len(points), "a step appears twice"
        return dict(points)

    def tags(self, plugin: str, run: str) -> set[str]:
        return set(self.json(f"data/plugin/{plugin}/tags").get(run, {}))


@contextmanager
def tensorboard(logdir: Path, reader: str) -> Iterator[TensorBoard]:
    """A server on a free port, ended whatever happens."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast", READERS[reader], "--reload_interval", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    printed: list[str] = []
    started = threading.Event()

    def listen(lines: Any) -> None:
        for line in lines:
            printed.append(line)
            if "Press CTRL+C" in line:
                started.set()
        started.set()

    listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
    listener.start()
    try:
        started.wait(harness.PATIENCE)
        found = re.search(r"http://\S+/", "".join(printed))
        assert found, f"TensorBoard did not start:\n{''.join(printed)}"
        yield TensorBoard(found[0])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(10)
        process.stderr.close()


def train_values(step: int) -> dict[str, float]:
    """Values that float32 holds exactly."""
    names = ["epoch", "loss", "accuracy", "margin", "reconstruction", "learning_rate", "gradient_norm"]
    return {
        **{name: step + place / 16 for place, name in enumerate(names)},
        "images_per_second": float("nan") if step == 10 else 512.0,
        "input_wait": 0.25,
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was killed after step 50, taken back to 30 and continued; and what the last look should show."""
    logdir = tmp_path_factory.mktemp("runs")
    folder = logdir / RUN
    folder.mkdir()
    config = with_overrides(RunConfig(), SMALL)
    net = network.build(config.model, seed=1)
    index = load_index("embedded")
    images_NHWC = np.random.default_rng(1).random((8, 28, 28, 1), np.float32)
    batch = {"image": tf.constant(images_NHWC), "label": tf.range(8)}
    for resumed_from, steps in [(0, range(10, 60, 10)), (30, range(40, 70, 10))]:
        summaries.take_back(folder, resumed_from)
        board = summaries.Board(folder, config, net, index)
        for step in steps:
            board.train(step, train_values(step), {"primary": step / 8, "stem/conv_0": 0.5})
            if step % 30 == 0:
                board.observe(step, batch)
                board.test(step, {"accuracy": step / 64, "margin": 0.5, "reconstruction": 0.25, "loss": 0.75})
        board.close()
    lengths_BJ = net(images_NHWC, tf.range(8)).class_scores_BJ.numpy()
    return logdir, {"images": images_NHWC, "lengths": lengths_BJ}


@pytest.mark.parametrize("reader", READERS)
def test_what_a_board_wrote_is_what_tensorboard_shows(written: tuple[Path, dict[str, Any]], reader: str) -> None:
    logdir, expected = written
    steps = range(10, 70, 10)
    with tensorboard(logdir, reader) as board:
        board.wait_for(lambda: 60 in board.scalars(RUN, "accuracy/test"))
        assert board.json("data/runs") == [RUN]
        tags = board.json("data/plugin/scalars/tags")[RUN]
        assert set(tags) == {
            *("accuracy/train", "accuracy/test", "loss/total", "loss/total_test", "loss/margin", "loss/margin_test"),
            *("loss/reconstruction", "loss/reconstruction_test", "train/epoch", "train/learning_rate"),
            *("train/gradient_norm", "speed/images_per_second", "speed/input_wait", "routing/alarm"),
            *("gradients/primary", "gradients/stem/conv_0"),
            *(f"weights/{layer}" for layer in LAYERS),
            *(f"routing/class_capsules/{name}" for name in MEASURES),
            *(f"capsules/class_capsules/{what}_{side}" for what in DEATHS for side in SIDES),
            *(f"routing/class_capsules/entropy_iteration_{r}" for r in (1, 2, 3)),
            *(f"routing/class_capsules/effective_parents_iteration_{r}" for r in (1, 2, 3)),
        }
        assert all(tag["description"] for tag in tags.values())
        for tag, name in [
            ("loss/total", "loss"),
            ("loss/margin", "margin"),
            ("accuracy/train", "accuracy"),
            ("train/learning_rate", "learning_rate"),
        ]:
            assert board.scalars(RUN, tag) == {step: train_values(step)[name] for step in steps}
        assert board.scalars(RUN, "gradients/primary") == {step: step / 8 for step in steps}
        assert board.scalars(RUN, "speed/images_per_second") == {step: 512.0 for step in steps if step != 10}
        assert board.scalars(RUN, "accuracy/test") == {30: 30 / 64, 60: 60 / 64}
        assert board.scalars(RUN, "loss/total_test") == {30: 0.75, 60: 0.75}
        entropies = board.scalars(RUN, "routing/class_capsules/entropy_iteration_1")
        assert entropies == pytest.approx({30: 1.0, 60: 1.0}, abs=1e-5)

        _check_histogram(board, expected["lengths"])
        _check_picture(board, expected["images"])
        _check_text_and_layout(board)


def _check_histogram(board: TensorBoard, lengths_BJ: Any) -> None:
    assert board.tags("histograms", RUN) == {
        "capsules/class_capsules/child_activations",
        "capsules/class_capsules/parent_activations",
    }
    tag = "capsules/class_capsules/parent_activations"
    points = board.json("data/plugin/histograms/histograms", run=RUN, tag=tag)
    assert [step for _, step, _ in points] == [30, 60]
    buckets = np.array(points[-1][2])  # rows of left edge, right edge, count
    edges = np.append(buckets[:, 0], buckets[-1, 1])
    np.testing.assert_allclose(edges[[0, -1]], [lengths_BJ.min(), lengths_BJ.max()], rtol=1e-5)
    counts, _ = np.histogram(np.clip(lengths_BJ, edges[0], edges[-1]), edges)
    assert buckets[:, 2].sum() == lengths_BJ.size
    assert np.abs(np.cumsum(buckets[:, 2]) - np.cumsum(counts)).max() <= 1  # a length may lie on an edge


def _check_picture(board: TensorBoard, images_NHWC: Any) -> None:
    assert board.tags("images", RUN) == {"pictures/reconstructions", "pictures/dimensions", "pictures/couplings"}
    points = board.json("data/plugin/images/images", run=RUN, tag="pictures/reconstructions", sample=0)
    assert [point["step"] for point in points] == [30, 60]
    png = board.get("data/plugin/images/individualImage", **dict(urllib.parse.parse_qsl(points[-1]["query"])))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture_HWC = tf.io.decode_png(png).numpy()
    assert picture_HWC.shape == (4 + 2 * 60, 4 + 4 * 116, 1)  # 8 pairs, four a row, 28 pixels as 56
    first_HWC = picture_HWC[4:60:2, 4:60:2] / 255
    np.testing.assert_allclose(first_HWC, images_NHWC[0], atol=0.51 / 255)


def _check_text_and_layout(board: TensorBoard) -> None:
    experiment = board.json("data/plugin/hparams/experiment", request="{}")
    assert {"recipe", "changes", "optimizer.learning_rate"} <= {info["name"] for info in experiment["hparamInfos"]}
    assert "accuracy/test" in {info["name"]["tag"] for info in experiment["metricInfos"]}
    texts = board.json("data/plugin/text/text", run=RUN, tag="run/config")
    assert [text["step"] for text in texts] == [10]
    assert re.search(r"<td>classes</td>\s*<td>10</td>", texts[0]["text"])
    assert re.search(r"<td>types</td>\s*<td><strong>2</strong></td>", texts[0]["text"])
    layout = board.json("data/plugin/custom_scalars/layout")
    charts = {chart["title"]: chart for category in layout["category"] for chart in category["chart"]}
    (pattern,) = charts["accuracy"]["multiline"]["tag"]
    drawn = board.json("data/plugin/custom_scalars/scalars", run=RUN, tag=pattern)
    assert set(drawn["tag_to_events"]) == {"accuracy/train", "accuracy/test"}


@pytest.mark.parametrize("reader", READERS)
def test_a_running_tensorboard_follows_a_resume(tmp_path: Path, reader: str) -> None:
    """What was taken back is forgotten, and the new part is read, without a restart."""
    folder = tmp_path / RUN
    folder.mkdir()
    config = with_overrides(RunConfig(), SMALL)
    net = network.build(config.model, seed=1)

    def part(resumed_from: int, last: int, loss: float) -> None:
        summaries.take_back(folder, resumed_from)
        board = summaries.Board(folder, config, net, load_index("embedded"))
        for step in range(resumed_from + 10, last + 1, 10):
            board.train(step, {"loss": loss})
        board.close()

    part(0, 50, 1.0)
    with tensorboard(tmp_path, reader) as board:
        board.wait_for(lambda: 50 in board.scalars(RUN, "loss/total"))
        part(20, 70, 2.0)
        board.wait_for(lambda: (70, 2.0) in board.points(RUN, "loss/total"))
        assert board.scalars(RUN, "loss/total") == {10: 1.0, 20: 1.0, **dict.fromkeys(range(30, 71, 10), 2.0)}


@pytest.mark.parametrize("reader", READERS)
def test_an_evaluation_that_is_made_again_replaces_the_first(tmp_path: Path, reader: str) -> None:
    """Also in a TensorBoard that is running and has seen the first."""
    config = with_overrides(RunConfig(), SMALL)
    run, name = tmp_path / RUN, f"{RUN}/evaluation/test"

    def write(correct: int) -> None:
        counts = Counts.none(config)
        counts.values_V[:] = [64, correct, 60, 6.4, 3.2]
        for right, found, count in ((0, 0, correct), (0, 3, 64 - correct)):
            counts.confusion_JJ[right, found] = count
        counts.bin_records_K[7], counts.bin_correct_K[7], counts.bin_confidence_K[7] = 64, correct, 32
        subject = Subject("test", "a set", "test", 40, 1, "the largest score")
        values = ("accuracy", "top5", "margin", "reconstruction")
        write_evaluation(run, "test", report(subject, counts, values, [f"class {number}" for number in range(10)]))

    write(32)
    with tensorboard(tmp_path, reader) as shown:

        def said() -> str:
            texts = shown.json("data/plugin/text/text", run=name, tag="evaluation/report")
            return texts[-1]["text"] if texts else ""

        shown.wait_for(lambda: shown.points(name, "evaluation/accuracy") == [(40, 0.5)])
        write(48)
        shown.wait_for(lambda: "test accuracy: 75.00 % of 64 records" in said())  # which is read after the numbers
        assert shown.points(name, "evaluation/accuracy") == [(40, 0.75)]
        assert shown.tags("scalars", name) == {
            f"evaluation/{what}"
            for what in ("accuracy", "accuracy_low", "accuracy_high", "top5", "loss", "lead", "calibration_error")
        }
        assert shown.points(name, "evaluation/calibration_error") == [(40, 0.25)]
        assert shown.points(name, "evaluation/top5") == [(40, 60 / 64)]
        assert shown.tags("images", name) == {"evaluation/calibration", "evaluation/confusion"}
        (picture,) = shown.json("data/plugin/images/images", run=name, tag="evaluation/confusion", sample=0)
        png = shown.get("data/plugin/images/individualImage", **dict(urllib.parse.parse_qsl(picture["query"])))
        assert tf.io.decode_png(png).shape[-1] == 3


def test_a_real_run_is_shown(tmp_path: Path) -> None:
    fields = {"log.observe_every_steps": "10", "evaluate.every_epochs": "0.25"}
    printed = harness.train(tmp_path / RUN, ranks=None, fields=fields)
    assert "WARNING" not in printed  # of TensorFlow, on what a look is made of
    with tensorboard(tmp_path, "fast") as board:
        board.wait_for(lambda: harness.STEPS in board.scalars(RUN, "accuracy/test"))
        train, test = harness.records(tmp_path / RUN), harness.records(tmp_path / RUN, "test")
        assert len(train) == harness.STEPS
        for tag, name in [("loss/total", "loss"), ("accuracy/train", "accuracy"), ("loss/margin", "margin")]:
            expected = {record["step"]: record[name] for record in train}
            assert board.scalars(RUN, tag) == pytest.approx(expected, rel=1e-6)
        assert board.scalars(RUN, "accuracy/test") == pytest.approx(
            {record["step"]: record["accuracy"] for record in test}, rel=1e-6
        )
        entropies = board.scalars(RUN, "routing/class_capsules/entropy_iteration_3")
        assert list(entropies) == [10, 20, 30]
        assert all(0 <= entropy <= 1.00001 for entropy in entropies.values())
        pictures = board.json("data/plugin/images/images", run=RUN, tag="pictures/reconstructions", sample=0)
        assert [picture["step"] for picture in pictures] == [10, 20, 30]
