"""Scenes of two images: how they are overlaid, against loops; who is paired with whom; the batches of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.data.small_sets import SIZE, SmallSet, numbered, pixels_of, with_record_changed
from tests.unit.data.test_pipeline import equal, numbers_of, step_of, taken, until_error
from trainer.config import with_overrides
from trainer.data import augment
from trainer.data.index import check_fits
from trainer.data.order import batch_ids, train_order
from trainer.data.overlap import overlaid, scenes
from trainer.data.pairs import NO_LABEL, partners, stand_ins
from trainer.data.pipeline import test_batches, train_batches
from trainer.errors import ConfigError, DataError

test_batches.__test__ = False  # type: ignore[attr-defined]  # it only sounds like a test

MakeSet = Callable[..., SmallSet]
SHIFT = 2
CANVAS = SIZE + 2 * SHIFT
OVERLAP = {"data.overlap.enabled": True, "data.overlap.shift": SHIFT, "model.image_size": CANVAS}


# one scene


def scene_by_loops(first: np.ndarray, second: np.ndarray, corners: np.ndarray, shift: int) -> list[np.ndarray]:
    height, width, channels = first.shape
    shape = (height + 2 * shift, width + 2 * shift, channels)
    alone, there = np.zeros((2, *shape), np.uint8), np.zeros((2, *shape[:2]), bool)
    for number, image in enumerate((first, second)):
        top, left = corners[2 * number : 2 * number + 2]
        for y, x in np.ndindex(height, width):
            alone[number, y + top, x + left] = image[y, x]
            there[number, y + top, x + left] = True
    canvas = np.zeros(shape, np.uint8)
    for y, x, c in np.ndindex(*shape):
        one, other = (int(value) for value in alone[:, y, x, c])
        if channels == 1:
            canvas[y, x, c] = min(one + other, 255)
        elif there[:, y, x].all():
            canvas[y, x, c] = (one + other + 1) // 2
        else:
            canvas[y, x, c] = one + other
    return [canvas, alone]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_scenes_against_loops(channels: int, shift: int) -> None:
    rng = np.random.default_rng(shift)
    first, second = rng.integers(0, 256, (2, 6, 7, 5, channels), dtype=np.uint8)
    corners_B4 = rng.integers(0, 2 * shift + 1, (6, 4)).astype(np.int32)
    canvas, alone = overlaid(first, second, corners_B4[:, :2], corners_B4[:, 2:], shift)
    assert (canvas.dtype, alone.dtype) == (tf.uint8, tf.uint8)
    for number in range(6):
        expected = scene_by_loops(first[number], second[number], corners_B4[number], shift)
        np.testing.assert_array_equal(canvas[number], expected[0])
        np.testing.assert_array_equal(alone[number], expected[1])


def test_images_are_shifted_independently_to_every_place_and_overlap_as_in_the_paper() -> None:
    """Sabour et al. 2017, section 6: up to 4 pixels each way on a 36x36 canvas; on average 80 % of a box overlaps."""
    ones = np.ones((4000, 28, 28, 1), np.uint8)
    canvas, alone = scenes(tf.constant(ones), tf.constant(ones), augment.draws(0, 0, np.arange(4000)), 4)
    assert canvas.shape == (4000, 36, 36, 1)
    corners = np.stack([alone.numpy()[..., 0].any(3 - axis).argmax(-1) for axis in (0, 1)], axis=-1).reshape(-1, 4)
    for column in corners.T:
        assert np.bincount(column, minlength=9).min() > 350  # of 444
    assert np.abs(np.corrcoef(corners.T) - np.eye(4)).max() < 0.06
    assert (canvas.numpy() == 2).sum(axis=(1, 2, 3)).mean() / 28**2 == pytest.approx(0.8, abs=0.01)


# partners


def partners_by_loops(labels: list[int], draws: list[float]) -> list[int]:
    found = []
    for number, (label, draw) in enumerate(zip(labels, draws, strict=True)):
        at = (number + int(draw * len(labels))) % len(labels)
        while labels[at] in (label, NO_LABEL):
            at = (at + 1) % len(labels)
        found.append(at)
    return found


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("count", [2, 7, 300])
def test_partners_against_loops(classes: int, count: int) -> None:
    rng = np.random.default_rng(count)
    labels = np.concatenate([[0, 1], rng.integers(NO_LABEL, classes, count - 2)])
    draws = rng.random(count)
    found = partners(labels, draws)
    assert found.tolist() == partners_by_loops(labels.tolist(), draws.tolist())
    assert (labels[found] != labels).all()
    assert (labels[found] >= 0).all()


def test_partners_are_spread_evenly() -> None:
    labels, draws = np.arange(4000) % 10, augment.draws(1, 0, np.arange(4000))[:, augment.PARTNER]
    found = partners(labels, draws)
    pairs = np.zeros((10, 10))
    np.add.at(pairs, (labels, labels[found]), 1)
    apart = pairs[~np.eye(10, dtype=bool)]
    assert apart.min() > 15
    assert len(np.unique(found)) > 2000


def test_a_window_of_one_class_is_an_error() -> None:
    for labels in ([3, 3, 3], [3, NO_LABEL], [NO_LABEL]):
        with pytest.raises(DataError, match="are of one class") as caught:
            partners(np.array(labels), np.zeros(len(labels)))
        assert "\n" not in str(caught.value)


def test_stand_ins_are_the_next_or_the_one_before() -> None:
    assert stand_ins(np.array([1, 0, 0, 1, 0], bool)).tolist() == [0, 3, 3, 3, 3]
    with pytest.raises(DataError, match="all damaged"):
        stand_ins(np.zeros(3, bool))


# batches


def test_a_batch_holds_scenes_both_labels_and_both_sources(small_set: MakeSet) -> None:
    made = small_set(overrides=OVERLAP)
    check_fits(made.index, made.config)
    order = train_order(made.config, made.index)
    others = set()
    for step, batch in enumerate(taken(train_batches(made.config, made.index, 0, 1, 0, order.steps_per_epoch))):
        assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
            "image": ("float32", (8, CANVAS, CANVAS, 1)),
            "sources": ("float32", (8, 2, CANVAS, CANVAS, 1)),
            "label": ("int32", (8, 2)),
            "id": ("int64", (8,)),
            "whole": ("bool", (8,)),
        }
        np.testing.assert_array_equal(batch["id"], batch_ids(order, step))
        numbers = np.array(numbers_of(made, "train", batch["id"]))
        np.testing.assert_array_equal(batch["label"][:, 0], numbers % 3)
        assert (batch["label"][:, 0] != batch["label"][:, 1]).all()
        bytes_of = np.round(batch["sources"] * 255).astype(np.int64)
        clipped = np.minimum(bytes_of.sum(1), 255).astype(np.float32)
        np.testing.assert_array_equal(clipped / np.float32(255), batch["image"])
        corners = augment.draws(0, 0, batch["id"])[:, [augment.SHIFT_Y, augment.SHIFT_X]] * (2 * SHIFT + 1)
        for row, (number, (top, left)) in enumerate(zip(numbers, corners.astype(int), strict=True)):
            np.testing.assert_array_equal(
                bytes_of[row, 0, top : top + SIZE, left : left + SIZE, 0], pixels_of(int(number))
            )
            other, label = number_of(bytes_of[row, 1, ..., 0])
            assert label == batch["label"][row, 1]
            others.add(other)
    assert len(others) > 40


def number_of(canvas: np.ndarray) -> tuple[int, int]:
    """(number, label) of the record of small_sets that lies somewhere on the canvas."""
    for number in range(131):
        for top, left in np.ndindex(2 * SHIFT + 1, 2 * SHIFT + 1):
            if np.array_equal(canvas[top : top + SIZE, left : left + SIZE], pixels_of(number)):
                return number, number % 3
    raise AssertionError("no such record")


def test_shapes_are_static(small_set: MakeSet) -> None:
    made = small_set(overrides=OVERLAP)
    for batches in (train_batches(made.config, made.index, 0, 1, 0, 1), test_batches(made.config, made.index, 0, 1)):
        with batches:
            assert all(spec.shape.is_fully_defined() for spec in batches.element_spec.values())


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_and_resumes_give_the_same_scenes(small_set: MakeSet, size: int) -> None:
    """Each batch by itself, as after a resume at its step; windows are cut at most of them."""
    made = small_set(overrides={**OVERLAP, "data.augment.flip": True})
    assert train_order(made.config, made.index).steps_per_epoch == 14
    whole = taken(train_batches(made.config, made.index, 0, 1, 0, 20))
    for start, steps in [(0, 20), (1, 1), (4, 3), (13, 2), (17, 3)]:
        parts = [taken(train_batches(made.config, made.index, rank, size, start, steps)) for rank in range(size)]
        joined = [{key: np.concatenate([p[key] for p in row]) for key in row[0]} for row in zip(*parts, strict=True)]
        equal(joined, whole[start : start + steps])


def test_epochs_and_seeds_pair_anew(small_set: MakeSet) -> None:
    made = small_set(overrides=OVERLAP)

    def sources(config: object, epoch: int) -> dict[int, bytes]:
        batches = taken(train_batches(config, made.index, 0, 1, 14 * epoch, 14))  # type: ignore[arg-type]
        return {i: s.tobytes() for b in batches for i, s in zip(b["id"].tolist(), b["sources"][:, 1], strict=True)}

    one, later = sources(made.config, 0), sources(made.config, 1)
    other = sources(with_overrides(made.config, {"seed": 1}), 0)
    for second in (later, other):
        both = one.keys() & second.keys()
        assert len(both) > 60
        assert sum(one[identity] == second[identity] for identity in both) < 5


@pytest.mark.parametrize("size", [2, 3])
def test_test_scenes_are_the_same_at_any_number_of_ranks(small_set: MakeSet, size: int) -> None:
    made = small_set(overrides=OVERLAP)

    def counted(ranks: int, batch_size: int) -> dict[str, np.ndarray]:
        config = with_overrides(made.config, {"evaluate.batch_size": batch_size})
        rows = [b for rank in range(ranks) for b in taken(test_batches(config, made.index, rank, ranks))]
        return {key: np.concatenate([b[key][b["weight"] > 0] for b in rows]) for key in rows[0]}

    alone = counted(1, 5)
    assert numbers_of(made, "test", alone["id"]) == list(range(1000, 1023))
    assert (alone["label"][:, 0] != alone["label"][:, 1]).all()
    for ranks, batch_size in [(size, 5), (1, 4)]:
        equal([counted(ranks, batch_size)], [alone])


def test_colour_images_and_crops(small_set: MakeSet) -> None:
    made = small_set(overrides={**OVERLAP, "model.channels": 3, "model.image_size": 8, "data.augment.resize": "crop"})
    (batch,) = taken(train_batches(made.config, made.index, 0, 1, 0, 1))
    assert batch["image"].shape == (8, 8, 8, 3)
    first, second = np.round(batch["sources"].swapaxes(0, 1) * 255).astype(int)
    canvas = np.round(batch["image"] * 255).astype(int)
    alone, mean = canvas == first + second, canvas == (first + second + 1) // 2
    assert (alone | mean).all()
    assert (mean & ~alone).any()


# what is wrong


@pytest.mark.parametrize("size", [1, 2])
def test_scenes_with_a_damaged_record_are_done_without(small_set: MakeSet, size: int) -> None:
    bad = 60  # record 2 of shard 4: a whole record whose image cannot be decoded
    made = with_record_changed(small_set(overrides=OVERLAP), 4, 2, lambda data: data.replace(b"IDAT", b"ABCD"))
    first = step_of(made, bad)
    served, message = until_error(train_batches(made.config, made.index, 0, 1, 0, 14))
    assert served <= first
    assert "train-00004-of-00009.tfrecord: record 2: not an image" in message
    sound = taken(train_batches(made.config, made.index, 0, 1, 0, served))
    config = with_overrides(made.config, {"data.tolerate_damaged": 100})
    parts = [taken(train_batches(config, made.index, rank, size, 0, 14)) for rank in range(size)]
    batches = [{key: np.concatenate([p[key] for p in row]) for key in row[0]} for row in zip(*parts, strict=True)]
    equal(batches[:served], sound)
    lost = [i for b in batches for i in b["id"][~b["whole"]].tolist()]
    assert bad in numbers_of(made, "train", np.array(lost))
    assert len(lost) <= 8
    for batch in batches:
        assert (batch["label"][:, 0] != batch["label"][:, 1]).all()
    late = taken(train_batches(config, made.index, 0, 1, first + 1, 14 - first - 1))  # nothing known from before
    if size == 1:
        equal(late, batches[first + 1 :])


def test_a_record_with_a_wrong_checksum_is_nobodys_partner(small_set: MakeSet) -> None:
    made = small_set(overrides={**OVERLAP, "data.tolerate_damaged": 100})
    sound = taken(train_batches(made.config, made.index, 0, 1, 0, 14))
    path = made.folder / made.index.splits["train"].shards[4].file
    data = bytearray(path.read_bytes())
    data[100] ^= 1  # in record 0, which is number 58
    path.write_bytes(data)
    batches = taken(train_batches(made.config, made.index, 0, 1, 0, 14))
    lost = np.concatenate([b["id"][~b["whole"]] for b in batches])
    assert numbers_of(made, "train", lost) == [58]
    assert all(np.isin(b["label"], range(3)).all() for b in batches)
    changed = sum(
        int((one["sources"] != other["sources"]).any(axis=(1, 2, 3, 4)).sum())
        for one, other in zip(sound, batches, strict=True)
    )
    assert 1 <= changed <= 8  # the record and those whose partner it was
    equal(taken(train_batches(made.config, made.index, 0, 1, 9, 5)), batches[9:])


def test_a_set_of_another_size_is_refused(small_set: MakeSet) -> None:
    made = small_set(overrides={**OVERLAP, "model.image_size": SIZE})
    with pytest.raises(DataError, match=r"of 6x6 pixels, scenes of 6x6 take 2x2: set model.image_size \(that of the"):
        check_fits(made.index, made.config)


def test_a_split_sorted_by_class_is_an_error(small_set: MakeSet) -> None:
    records = [one._replace(label=int(number >= 120)) for number, one in enumerate(numbered(131))]
    made = small_set(records, OVERLAP)
    _, message = until_error(train_batches(made.config, made.index, 0, 1, 0, 14))
    assert "data.overlap needs two" in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loss.kind": "spread"}, "loss.kind spread knows one class only"),
        ({"data.augment.shift": 1}, "set data.augment.shift to 0"),
        ({"data.affine.rotation": 10}, "set one of the two"),
        ({"data.overlap.shift": CANVAS // 2}, "leaves no image between"),
    ],
)
def test_settings_that_do_not_go_together(small_set: MakeSet, change: dict[str, object], reason: str) -> None:
    made = small_set(overrides=OVERLAP)
    with pytest.raises(ConfigError, match=reason):
        with_overrides(made.config, change)
