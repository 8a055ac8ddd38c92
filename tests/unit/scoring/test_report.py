"""From a network's scores to a report, against loops over records.

Axes: N records, J classes, K bins.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer import evaluation
from trainer.config import LossConfig, RunConfig, with_overrides
from trainer.distributed import World
from trainer.errors import ConfigError
from trainer.model.network import Outputs
from trainer.scoring import output, plots, request, table
from trainer.scoring.counts import BINS, Counts, confidence, make_count_batch
from trainer.scoring.report import Report, Subject, as_json, confidence_is, report
from trainer.scoring.request import Request
from trainer.summaries import figures

N, J = 200, 7
NAMES = tuple(f"class {number}" for number in range(J))


class Canned:
    """A network that gives the scores that stand in the first pixels of its images."""

    def __call__(self, images: tf.Tensor, objects: int = 1) -> Outputs:
        return Outputs(images[:, 0, : images.shape[2], 0], None, None, {})


def case(classes: int = J, objects: int = 1, **fields: Any) -> tuple[RunConfig, np.ndarray, np.ndarray, np.ndarray]:
    """Configuration, scores [N, J] in float32, labels and weights; a tenth of the records is padding."""
    overrides = {"model.classes": classes, "model.decoder.hidden": "", "model.image_size": max(28, classes), **fields}
    config = with_overrides(RunConfig(), overrides)
    random = np.random.default_rng(3)
    labels = random.integers(0, classes, N)
    scores = random.random((N, classes)).astype(np.float32)
    scores[np.arange(N), labels] += random.random(N).astype(np.float32)  # so that it is right more often than not
    scores = (scores / 2).astype(np.float32)
    if objects == 2:
        labels = np.stack([labels, (labels + random.integers(1, classes, N)) % classes], axis=1)
    return config, scores, labels, (random.random(N) < 0.9).astype(np.float32)


def scored(config: RunConfig, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, batch: int = 64) -> Report:
    counts, count = Counts.none(config), make_count_batch(config, Canned())
    for start in range(0, len(scores), batch):
        part = slice(start, start + batch)
        batch_values = {
            "image": tf.constant(scores[part][:, None, :, None]),
            "label": tf.constant(labels[part]),
            "weight": tf.constant(weights[part]),
        }
        count(counts, batch_values)
    names = tuple(f"class {number}" for number in range(scores.shape[1]))
    subject = Subject("test", "a set", "test", 12, config.objects, confidence_is(config.loss))
    return report(subject, counts.over_ranks(World()), evaluation.value_names(config), names)


def sure(config: LossConfig, scores_J: np.ndarray) -> float:
    scores_J = scores_J.astype(np.float64)
    if config.kind == "cross_entropy":
        powers = [math.exp(config.scale * score) for score in scores_J]
        return max(powers) / sum(powers)
    if config.kind == "nll":
        return max(scores_J) / sum(scores_J)
    return min(max(scores_J), 1.0)


@pytest.mark.parametrize("kind", ["margin", "spread", "cross_entropy", "nll"])
def test_a_report_is_what_loops_find(kind: str) -> None:
    config, scores, labels, weights = case(**{"loss.kind": kind})
    found = scored(config, scores, labels, weights)
    kept = [n for n in range(N) if weights[n]]
    guesses = [int(np.argmax(scores[n])) for n in range(N)]
    assert found.records == len(kept) < N
    right = sum(guesses[n] == labels[n] for n in kept)
    assert found.accuracy == right / len(kept)
    for end in (found.low, found.high):  # where the share lies at the edge of what is likely (Wilson 1927)
        spread = 1.959964 * math.sqrt(end * (1 - end) / len(kept))
        assert abs(found.accuracy - end) == pytest.approx(spread, rel=1e-6)
    top = sum(labels[n] in np.argsort(-scores[n])[:5] for n in kept)
    assert found.top5 == top / len(kept)
    for j, each in enumerate(found.classes):
        present = [n for n in kept if labels[n] == j]
        taken = [n for n in kept if guesses[n] == j]
        assert each.records == len(present)
        assert each.recall == sum(guesses[n] == j for n in present) / len(present)
        assert each.precision == sum(labels[n] == j for n in taken) / len(taken)
        for other in range(J):
            assert found.confusion[j][other] == sum(guesses[n] == other for n in present)
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for n in kept:
        bins[min(int(sure(config.loss, scores[n]) * BINS), BINS - 1)].append(n)
    assert [each.records for each in found.bins] == [len(each) for each in bins]
    error = 0.0
    for members in bins:
        if members:
            accuracy = sum(guesses[n] == labels[n] for n in members) / len(members)
            confident = sum(sure(config.loss, scores[n]) for n in members) / len(members)
            error += len(members) / len(kept) * abs(accuracy - confident)
    assert found.calibration_error == pytest.approx(error, rel=1e-5)  # confidences are float32
    leads = [scores[n][labels[n]] - max(s for j, s in enumerate(scores[n]) if j != labels[n]) for n in kept]
    assert found.lead == pytest.approx(sum(leads) / len(kept), rel=1e-4, abs=1e-6)  # differences of float32
    most = found.confusions[0]
    wrong = {(i, j): found.confusion[i][j] for i in range(J) for j in range(J) if i != j}
    assert most.records == max(wrong.values()) == wrong[NAMES.index(most.right), NAMES.index(most.found)]
    assert most.of == sum(found.confusion[NAMES.index(most.right)])
    assert all(isinstance(count, int) for row in found.confusion for count in row)


def test_pairs_are_right_where_both_are_found() -> None:
    config, scores, labels, weights = case(
        objects=2, **{"data.overlap.enabled": True, "data.overlap.shift": 0, "model.classes": J}
    )
    found = scored(config, scores, labels, weights)
    kept = [n for n in range(N) if weights[n]]
    best = [set(np.argsort(-scores[n])[:2].tolist()) for n in range(N)]
    assert found.accuracy == sum(best[n] == set(labels[n].tolist()) for n in kept) / len(kept)
    for j, each in enumerate(found.classes):
        present = [n for n in kept if j in labels[n]]
        assert each.records == len(present)
        assert each.recall == sum(j in best[n] for n in present) / len(present)
        taken = [n for n in kept if j in best[n]]
        assert each.precision == sum(j in labels[n] for n in taken) / len(taken)
    assert (found.top5, found.calibration_error, found.lead) == (None, None, None)
    assert (found.confusion, found.confusions) == ((), ())


def test_sums_do_not_depend_on_the_batches() -> None:
    config, scores, labels, weights = case()
    whole, parts = (scored(config, scores, labels, weights, batch) for batch in (N, 7))
    assert (whole.confusion, whole.records, whole.top5) == (parts.confusion, parts.records, parts.top5)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-6)  # losses are float32, their sums float64


def test_a_class_that_is_not_there_has_no_recall() -> None:
    config, scores, labels, weights = case()
    labels = np.where(labels == 3, 4, labels)
    scores[:, 3] = 0
    found = scored(config, scores, labels, weights)
    assert (found.classes[3].records, found.classes[3].recall, found.classes[3].precision) == (0, None, None)
    assert any(line.split()[-2:] == ["-", "-"] for line in table.lines(found))


def test_with_five_classes_there_is_no_top_five() -> None:
    config, scores, labels, weights = case(classes=5)
    assert scored(config, scores, labels, weights).top5 is None


def test_json_holds_all_of_it() -> None:
    config, scores, labels, weights = case()
    found = scored(config, scores, labels, weights)
    again = json.loads(json.dumps(as_json(found)))
    assert again["accuracy"] == found.accuracy
    assert again["classes"][2] == {**vars(found.classes[2])}
    assert again["confusion"] == [list(row) for row in found.confusion]
    assert again["margin"] == found.terms["margin"] == again["loss"]
    assert (again["test"], again["split"], again["step"], again["objects"]) == ("test", "test", 12, 1)


@pytest.mark.parametrize("classes", [7, 60])
def test_a_table_fits_80_columns(classes: int) -> None:
    config, scores, labels, weights = case(classes=classes)
    found = scored(config, scores, labels, weights)
    assert max(map(len, [table.title(found), *table.lines(found)])) <= 80


def test_of_many_classes_the_worst_and_the_best_are_listed() -> None:
    """And those that no record holds are neither."""
    config, scores, labels, weights = case(classes=60)
    labels = np.where(labels < 5, 30, labels)
    found = scored(config, scores, labels, weights)
    lines = table.lines(found)
    start, end = (next(n for n, line in enumerate(lines) if word in line) for word in ("recall %", "often"))
    listed = [line[:8].strip() for line in lines[start + 1 : end - 1]]
    held = sorted((each for each in found.classes if each.records), key=lambda each: each.recall)
    assert listed[10].startswith("...")
    assert listed[:10] + listed[11:] == [each.name for each in [*held[:10], *held[-10:]]]
    absent = 60 - len(held)
    assert lines[start + 11] == f"... {len(held) - 20} between, {absent} without records; --json has all ..."


def test_the_printed_confusions_are_the_counted_ones() -> None:
    config, scores, labels, weights = case()
    found = scored(config, scores, labels, weights)
    lines = table.lines(found)
    head = next(number for number, line in enumerate(lines) if line.startswith("confusion:"))
    rows = [line.split()[3:] for line in lines[head + 2 : head + 2 + J]]  # behind number and name of two words
    assert [[0 if cell == "." else int(cell) for cell in row] for row in rows] == [list(r) for r in found.confusion]


def test_a_softmax_that_is_sure_is_in_the_last_bin() -> None:
    scores = tf.constant([[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = confidence(LossConfig(kind="cross_entropy", scale=20.0), scores)
    np.testing.assert_allclose(found, [1.0, 1 / 3], rtol=1e-6)
    config = with_overrides(RunConfig(), {"loss.kind": "cross_entropy", "loss.scale": 20, "model.classes": 3})
    config = with_overrides(config, {"model.decoder.hidden": ""})
    sure_scores = np.array([[5.0, 0, 0]] * 4, np.float32)
    found = scored(config, sure_scores, np.zeros(4, np.int64), np.ones(4, np.float32))
    assert [each.records for each in found.bins] == [0] * (BINS - 1) + [4]


@pytest.mark.parametrize("classes", [7, 60])
def test_pictures_are_drawn(classes: int) -> None:
    config, scores, labels, weights = case(classes=classes)
    found = scored(config, scores, labels, weights)
    for figure in (plots.calibration(found), plots.confusion(found)):
        picture = figures.pixels(figure)
        assert picture.shape[-1] == 3
        assert picture.std() > 10  # something is on it


def test_each_row_of_confusions_is_a_line_of_the_json(tmp_path: Path) -> None:
    config, scores, labels, weights = case(classes=300)
    found = scored(config, scores, labels, weights)
    file = tmp_path / "score.json"
    output.write_json(file, [found])
    text = file.read_text()
    assert json.loads(text)["confusion"] == [list(row) for row in found.confusion]
    assert sum(line.count(",") > 250 for line in text.splitlines()) == 300
    output.write_json(file, [found, replace(found, subject=replace(found.subject, test="affine"))])
    assert list(json.loads(file.read_text())["tests"]) == ["test", "affine"]


def test_what_is_said_of_confidence_is_what_it_is() -> None:
    for kind in ("margin", "spread", "cross_entropy", "nll"):
        assert confidence_is(LossConfig(kind=kind))
    assert "softmax(20 x score)" in confidence_is(LossConfig(kind="cross_entropy", scale=20.0))


def test_two_classes_are_no_pairs_to_be_told_apart() -> None:
    config = with_overrides(RunConfig(), {"model.classes": 2})
    assert request.tests_of(config) == ("test", "affine")
    with pytest.raises(ConfigError, match="--overlap: of two classes both are in every pair"):
        request.config_for(config, "overlap")


def test_labels_that_are_angles_too_are_no_pairs() -> None:
    config = with_overrides(RunConfig(), {"data.rotations": 4, "model.classes": 40})
    assert request.tests_of(config) == ("test", "affine")
    with pytest.raises(ConfigError, match="--overlap: its classes are angles too"):
        request.config_for(config, "overlap")


def test_a_run_that_was_tested_under_affine_maps_is_tested_in_pairs_without() -> None:
    config = with_overrides(RunConfig(), {"data.affine.rotation": 20})
    assert request.tests_of(config) == request.TESTS
    pairs = request.config_for(config, "overlap").data
    assert (pairs.overlap.enabled, pairs.affine.enabled) == (True, False)


@pytest.mark.parametrize(
    ("data", "split", "name"),
    [(None, None, ""), (None, "train", "-train"), ("/data/set 1/", None, "-set-1"), ("gs://b/x", "val", "-x-val")],
)
def test_another_set_has_another_name(data: str | None, split: str | None, name: str) -> None:
    assert Request(Path("run"), Path("run"), data=data, split=split).beside == name
