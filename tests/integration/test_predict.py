"""``capsnet predict`` as a person uses it: a small network on images of the embedded test split."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.harness import PATIENCE, leftovers, train

WORDS = [sys.executable, "-m", "trainer", "predict"]
EXACT = 1e-6  # float32 scores of another batch and another graph
SHOWN = 20


@pytest.fixture(scope="module")
def run(small_run: Path) -> Path:
    return small_run


@pytest.fixture(scope="module")
def exported(small_export: tuple[Path, str]) -> Path:
    return small_export[0]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The first test images, uint8 [N, H, W]."""
    import tensorflow as tf

    from trainer.config import RunConfig
    from trainer.data.index import load_index
    from trainer.data.pipeline import test_batches as batches_of_tests

    with batches_of_tests(RunConfig(), load_index("embedded"), 0, 1) as batches:
        return np.asarray(tf.cast(tf.round(next(batches)["image"] * 255), tf.uint8))[:SHOWN, :, :, 0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


def predict(*words: object, code: int = 0) -> tuple[list[dict[str, str]], str]:
    """(rows on stdout, what was said on stderr)."""
    done = subprocess.run([*WORDS, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout))), done.stderr


def test_rows_are_what_the_library_sees(run: Path, photos: Path, images: np.ndarray, tmp_path: Path) -> None:
    import trainer

    model = trainer.load(run)
    scores_NJ = model.scores_BJ(images[..., np.newaxis])
    found, said = predict(run, photos, "--scores", "--top", "3")
    assert said == ""
    assert [row["file"] for row in found] == [str(photos / f"{number:02d}.png") for number in range(SHOWN)]
    assert list(found[0])[:8] == [
        *("file", "label", "score", "second", "second_score", "third", "third_score", "error")
    ]
    for row, scores_J in zip(found, scores_NJ, strict=True):
        np.testing.assert_allclose([float(row[name]) for name in model.classes], scores_J, atol=EXACT)
        order_J = np.argsort(-scores_J)
        assert [row[place] for place in ("label", "second", "third")] == [model.classes[j] for j in order_J[:3]]
        assert float(row["second_score"]) == pytest.approx(scores_J[order_J[1]], abs=EXACT)
    predict(run, photos, "--scores", "--top", "3", "--output", tmp_path / "new" / "seen.csv")
    assert list(csv.DictReader((tmp_path / "new" / "seen.csv").open())) == found
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["seen.csv"]


def test_an_export_gives_the_same_rows(run: Path, exported: Path, photos: Path) -> None:
    ours, theirs = (predict(path, photos)[0] for path in (run, exported))
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert float(mine["score"]) == pytest.approx(float(other["score"]), abs=EXACT)
    said = predict(exported, photos, "--reconstructions", "x", code=2)[1]
    assert "name the run directory" in said


def test_a_bad_file_is_a_line_and_a_row_and_the_others_go_on(run: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    found, said = predict(run, photos / "00.png", bad, photos / "01.png", code=1)
    assert [bool(row["label"]) for row in found] == [True, False, True]
    assert found[1]["error"] == "not an image that Pillow knows"
    assert said.splitlines() == [
        f"capsnet: {bad}: not an image that Pillow knows",
        "capsnet: 1 of 3 images could not be used: see the column 'error'",
    ]
    alone, _ = predict(run, bad, code=1)
    assert len(alone) == 1


def test_each_image_beside_its_reconstruction(run: Path, photos: Path, images: np.ndarray, tmp_path: Path) -> None:
    found, _ = predict(run, photos, "--reconstructions", tmp_path / "pictures")
    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in drawn] == [f"{number + 1:06d}-{number:02d}.png" for number in range(SHOWN)]
    with Image.open(drawn[3]) as picture:
        pixels = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(pixels[4 : 4 + 168 : 6, 4 : 4 + 168 : 6], images[3])
    assert len(found) == SHOWN
    assert leftovers(tmp_path) == []


def test_networks_of_scenes_see_two_things(small_pairs: Path, tmp_path: Path, photos: Path) -> None:
    found, _ = predict(small_pairs, photos, "--reconstructions", tmp_path / "pictures")
    assert all(row["label"] != row["second"] for row in found)
    with Image.open(next((tmp_path / "pictures").iterdir())) as picture:
        assert picture.width == 4 + 3 * 4 * 36 + 4  # the scene, and either of two capsules
    assert "--top 1: give 2 to 10" in predict(small_pairs, photos, "--top", 1, code=2)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_done_is_there_after_a_stop(run: Path, tmp_path: Path, number: signal.Signals) -> None:
    large = tmp_path / "large.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)).save(large)
    output, part = tmp_path / "seen.csv", tmp_path / "seen.csv.part"
    words = [*WORDS, str(run), *[str(large)] * 3000, "--output", str(output)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + PATIENCE
    while not part.exists() or part.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 75
    done = len(list(csv.DictReader(part.open())))
    assert 0 < done < 3000
    assert f"capsnet: stopped after {done:,} of 3,000 images; their rows are in {part}" in said
    assert not output.exists()


CASES = {
    "no run": (["nowhere", "x.png"], "nowhere: neither a run directory nor an export"),
    "no images": (["RUN"], "IMAGES"),
    "no such image": (["RUN", "nowhere.png"], "nowhere.png: no such file or folder"),
    "no checkpoint": (["RUN", "PHOTOS", "--checkpoint", "3"], "no checkpoint 3"),
    "top": (["RUN", "PHOTOS", "--top", "11"], "--top 11: give 1 to 10"),
    "folder": (["RUN", "PHOTOS", "--output", "."], "--output .: is a folder"),
    "below a file": (["RUN", "PHOTOS", "--output", "file/x.csv"], "--output file: cannot be made"),
    "pictures below a file": (["RUN", "PHOTOS", "--reconstructions", "file/x"], "cannot be made"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_before_tensorflow(run: Path, photos: Path, tmp_path: Path, case: str) -> None:
    words, expected = CASES[case]
    (tmp_path / "file").touch()
    places = {"RUN": str(run), "PHOTOS": str(photos)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *WORDS[1:], *(places.get(word, word) for word in words)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, len(said), done.stdout) == (2, 1, "")
    assert expected in said[0]
    assert not any(line.endswith("| tensorflow") for line in done.stderr.splitlines())


def test_without_a_decoder_there_is_nothing_to_reconstruct(run: Path, photos: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    train(plain, fields={"model.decoder.hidden": "", "train.epochs": "0.05"})
    said = predict(plain, photos, "--reconstructions", tmp_path / "x", code=2)[1]
    assert said == "capsnet: --reconstructions: this network has no decoder (model.decoder.hidden)\n"
    assert not (tmp_path / "x").exists()


def test_a_reader_that_has_seen_enough_is_no_error(run: Path, photos: Path) -> None:
    command = f"{' '.join(WORDS)} {run} {photos} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "file,label,score,second,second_score,error\n"


def test_the_means_of_weights_are_what_predicts(tmp_path: Path, photos: Path) -> None:
    """As in all that uses a checkpoint; they are in it beside the weights."""
    import trainer

    folder = tmp_path / "averaged"
    train(folder, fields={"optimizer.average_decay": "0.9", "train.epochs": "0.2"})
    assert json.loads((folder / "config.json").read_text())["optimizer"]["average_decay"] == 0.9
    answers = trainer.load(folder).classify_all(sorted(photos.iterdir()))
    found, _ = predict(folder, photos)
    for row, answer in zip(found, answers, strict=True):
        assert float(row["score"]) == pytest.approx(answer.score, abs=EXACT)
