from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from tests.unit.data.small_sets import SmallSet, numbered, pixels_of, png, with_record_changed
from trainer.config import with_overrides
from trainer.data.order import batch_ids, record_place, train_order
from trainer.data.pipeline import Batches, prepare_images, test_batches, train_batches
from trainer.data.shards import Record
from trainer.errors import ConfigError, DataError

test_batches.__test__ = False  # type: ignore[attr-defined]  # it only sounds like a test

MakeSet = Callable[..., SmallSet]
AUGMENTED = {"data.augment.shift": 2, "data.augment.flip": True}


def taken(batches: Iterable[dict[str, object]]) -> list[dict[str, np.ndarray]]:
    return [{key: np.asarray(value) for key, value in batch.items()} for batch in batches]


def equal(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def numbers_of(made: SmallSet, split: str, ids: np.ndarray) -> list[int]:
    """The numbers under which small_sets wrote these records."""
    shards = made.index.splits[split].shards
    first = 0 if split == "train" else 1000
    numbers = []
    for identity in ids.tolist():
        shard, record = record_place(identity)
        numbers.append(first + sum(part.records for part in shards[:shard]) + record)
    return numbers


def test_batches_are_the_records_of_the_order(small_set: MakeSet) -> None:
    made = small_set()
    order = train_order(made.config, made.index)
    steps = order.steps_per_epoch + 3  # over the end of an epoch
    batches = taken(train_batches(made.config, made.index, 0, 1, 0, steps))
    assert len(batches) == steps
    for step, batch in enumerate(batches):
        assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
            "image": ("float32", (8, 6, 6, 1)),
            "label": ("int32", (8,)),
            "id": ("int64", (8,)),
            "whole": ("bool", (8,)),
        }
        np.testing.assert_array_equal(batch["id"], batch_ids(order, step))
        numbers = numbers_of(made, "train", batch["id"])
        np.testing.assert_array_equal(batch["label"], [number % 3 for number in numbers])
        pixels = np.stack([pixels_of(number) for number in numbers])[..., None]
        np.testing.assert_array_equal(batch["image"], pixels.astype(np.float32) / np.float32(255))


def test_shapes_are_static(small_set: MakeSet) -> None:
    made = small_set()
    with train_batches(made.config, made.index, 1, 2, 0, 1) as batches:
        assert {key: spec.shape.as_list() for key, spec in batches.element_spec.items()} == {
            "image": [4, 6, 6, 1],
            "label": [4],
            "id": [4],
            "whole": [4],
        }
    with test_batches(made.config, made.index, 0, 1) as batches:
        assert batches.element_spec["image"].shape.as_list() == [5, 6, 6, 1]
        assert batches.element_spec["weight"].shape.as_list() == [5]


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_have_the_global_batches_of_one(small_set: MakeSet, size: int) -> None:
    made = small_set(overrides=AUGMENTED)
    alone = taken(train_batches(made.config, made.index, 0, 1, 3, 16))
    ranks = [taken(train_batches(made.config, made.index, rank, size, 3, 16)) for rank in range(size)]
    joined = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in zip(*ranks, strict=True)
    ]
    equal(joined, alone)


def test_ranks_that_do_not_divide_the_lanes(small_set: MakeSet) -> None:
    made = small_set()
    with pytest.raises(ConfigError, match="3 ranks do not divide"):
        train_batches(made.config, made.index, 0, 3, 0, 1)


@pytest.mark.parametrize(
    "overrides",
    [
        AUGMENTED,
        {"data.augment.resize": "crop", "model.image_size": 4},
        {"data.augment.resize": "random_resized_crop", "model.image_size": 5},
    ],
)
def test_resuming_gives_the_same_bits(small_set: MakeSet, overrides: dict[str, object]) -> None:
    made = small_set(overrides=overrides)
    assert train_order(made.config, made.index).steps_per_epoch == 14
    whole = taken(train_batches(made.config, made.index, 0, 1, 0, 20))
    for start in (1, 14, 17):
        equal(taken(train_batches(made.config, made.index, 0, 1, start, 20 - start)), whole[start:])


def test_readers_and_prefetch_change_nothing(small_set: MakeSet) -> None:
    made = small_set(overrides=AUGMENTED)
    other = with_overrides(made.config, {"data.readers": 5, "data.prefetch": 1})
    equal(
        taken(train_batches(other, made.index, 0, 1, 0, 20)),
        taken(train_batches(made.config, made.index, 0, 1, 0, 20)),
    )


def test_augmentation_differs_by_epoch_and_not_by_batch(small_set: MakeSet) -> None:
    made = small_set(overrides=AUGMENTED)

    def images(batch_size: int, epoch: int) -> dict[int, np.ndarray]:
        config = with_overrides(made.config, {"train.global_batch_size": batch_size})
        steps = train_order(config, made.index).steps_per_epoch
        batches = taken(train_batches(config, made.index, 0, 1, epoch * steps, steps))
        pairs = [pair for batch in batches for pair in zip(batch["id"].tolist(), batch["image"], strict=True)]
        return dict(pairs)

    small, large, later = images(4, 0), images(24, 0), images(4, 1)
    both = small.keys() & large.keys()
    assert len(both) > 50
    for identity in both:
        np.testing.assert_array_equal(small[identity], large[identity])
    again = small.keys() & later.keys()
    assert sum(np.array_equal(small[identity], later[identity]) for identity in again) < len(again) / 4


def test_resuming_does_not_touch_what_came_before(small_set: MakeSet) -> None:
    """Shards that only earlier steps need may even be gone."""
    overrides = {"data.lanes": 1, "train.global_batch_size": 1, "data.shuffle_window": 1, "data.interleave_shards": 1}
    made = small_set(overrides=overrides)
    order = train_order(made.config, made.index)
    needed = {record_place(int(batch_ids(order, step)[0]))[0] for step in range(100, 110)}
    for number, shard in enumerate(made.index.splits["train"].shards):
        if number not in needed:
            (made.folder / shard.file).unlink()
    assert len(taken(train_batches(made.config, made.index, 0, 1, 100, 10))) == 10


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_test_record_counts_once(small_set: MakeSet, size: int) -> None:
    made = small_set()
    seen: list[int] = []
    for rank in range(size):
        for batch in taken(test_batches(made.config, made.index, rank, size)):
            assert batch["image"].shape == (5, 6, 6, 1)
            assert set(batch["weight"].tolist()) <= {0.0, 1.0}
            counted = batch["weight"] == 1
            numbers = numbers_of(made, "test", batch["id"][counted])
            np.testing.assert_array_equal(batch["label"][counted], [number % 3 for number in numbers])
            pixels = np.stack([pixels_of(number) for number in numbers])[..., None]
            np.testing.assert_array_equal(batch["image"][counted], pixels.astype(np.float32) / np.float32(255))
            seen += numbers
    assert seen == list(range(1000, 1023))


def test_a_rank_may_have_no_test_record(small_set: MakeSet) -> None:
    made = small_set()
    assert taken(test_batches(made.config, made.index, 0, 30)) == []


@pytest.mark.parametrize("resize", ["none", "crop", "whole", "random_resized_crop"])
def test_the_library_sees_what_the_tests_see(small_set: MakeSet, resize: str) -> None:
    size = 6 if resize == "none" else 4
    made = small_set(overrides={**AUGMENTED, "data.augment.resize": resize, "model.image_size": size})
    (first, *_) = taken(test_batches(made.config, made.index, 0, 1))
    images = np.stack([pixels_of(number) for number in range(1000, 1005)])[..., None]
    np.testing.assert_array_equal(prepare_images(made.config, images), first["image"])


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((2, 6, 6, 1), np.float32), "images are float32"),
        (np.zeros((6, 6, 1), np.uint8), r"give uint8 \[N, height, width, 1\]"),
        (np.zeros((2, 6, 6, 3), np.uint8), "give uint8"),
        (np.zeros((2, 6, 7, 1), np.uint8), "6x7 pixels, the model takes 6x6"),
    ],
)
def test_images_that_cannot_be_prepared(small_set: MakeSet, images: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        prepare_images(small_set().config, images)


def until_error(batches: Batches) -> tuple[int, str]:
    """(batches served, message) of an iteration that ends in a DataError."""
    served = 0
    try:
        for _ in batches:
            served += 1
    except DataError as error:
        assert next(batches, None) is None
        return served, str(error)
    pytest.fail(f"{served} batches and no error")


def step_of(made: SmallSet, number: int) -> int:
    order = train_order(made.config, made.index)
    steps = range(order.steps_per_epoch)
    return next(step for step in steps if number in numbers_of(made, "train", batch_ids(order, step)))


BAD = 60  # in shard 4: shards hold 14, 15, 14, 15, 14, ... records, from number 58 on
BAD_NAME = "train-00004-of-00009.tfrecord: record 2: "


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\x89PNG", b"\x89JPG", "not an image"),
        (b"IDAT", b"ABCD", "not an image"),
        (b"image/encoded", b"image/Encoded", "holds 0 values of image/encoded"),
        (b"image/class/label\x12\x05\x1a\x03\n\x01\x00", b"image/class/label\x12\x05\x1a\x03\n\x01\x03", "label 3 is"),
        (b"image/class/label\x12\x05\x1a\x03\n\x01\x00", b"image/class/label\x12\x05\x1a\x03\n\x01\x7f", "label 127"),
        (b"image/class/label\x12\x05\x1a", b"image/class/label\x12\x05\x0a", "not a tf.train.Example with"),
        (b"\x00\x00\x00\x06\x00\x00\x00\x06\x08", b"\x00\x00\x00\x06\x00\x00\x00\x05\x08", "not an image"),
    ],
)
def test_a_record_that_is_whole_but_wrong_is_named(small_set: MakeSet, old: bytes, new: bytes, reason: str) -> None:
    made = with_record_changed(small_set(), 4, 2, lambda serialized: serialized.replace(old, new))
    served, message = until_error(train_batches(made.config, made.index, 0, 1, 0, 20))
    assert served == step_of(made, BAD)
    assert f"{BAD_NAME}" in message
    assert reason in message
    assert "\n" not in message


def test_an_image_of_another_size_is_named(small_set: MakeSet) -> None:
    records = list(numbered(131))
    records[BAD] = Record(png(np.zeros((6, 5), np.uint8)), 1, "odd")
    made = small_set(records)
    served, message = until_error(train_batches(made.config, made.index, 0, 1, 0, 20))
    assert served == step_of(made, BAD)
    assert f"{BAD_NAME}6x5 pixels, the model takes 6x6" in message
    crop = with_overrides(made.config, {"data.augment.resize": "crop"})
    _, message = until_error(train_batches(crop, made.index, 0, 1, 0, 20))
    assert f"{BAD_NAME}6x5 pixels, too small for crops of 6x6" in message


def test_a_damaged_record_is_named_by_the_rank_that_reads_it(small_set: MakeSet) -> None:
    made = small_set()
    path = made.folder / made.index.splits["train"].shards[4].file
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    order = train_order(made.config, made.index)
    served, message = until_error(train_batches(made.config, made.index, 0, 1, 0, 20))
    assert served <= min(step_of(made, number) for number in range(58, 62))
    assert "train-00004-of-00009.tfrecord: record 0: wrong checksum of its data" in message
    outcomes = []
    for rank in range(4):
        try:
            outcomes.append(len(taken(train_batches(made.config, made.index, rank, 4, 0, order.steps_per_epoch))))
        except DataError as error:
            outcomes.append(str(error))
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == [message]
    assert outcomes.count(order.steps_per_epoch) == 3


def test_a_damaged_test_record_is_named(small_set: MakeSet) -> None:
    made = small_set()
    path = made.folder / made.index.splits["test"].shards[1].file
    path.write_bytes(path.read_bytes()[:-1])
    served, message = until_error(test_batches(made.config, made.index, 0, 1))
    assert served == 3  # records 19..22 are the last block of the second shard of 12
    assert "test-00001-of-00002.tfrecord: record 11: truncated" in message


@pytest.mark.parametrize("determinism", [False, True])
def test_batches_are_made_ahead_of_their_use(small_set: MakeSet, determinism: bool) -> None:
    """TensorFlow's determinism of operations would make all of it wait until a batch is asked for."""
    if determinism:
        tf.config.experimental.enable_op_determinism()
    try:
        made = small_set()
        with train_batches(made.config, made.index, 0, 1, 0, 8) as batches:
            next(batches)
            deadline = time.monotonic() + 30
            while batches._flow.augmented < 4:
                assert time.monotonic() < deadline, "nothing was made ahead"
                time.sleep(0.01)
            assert tf_config.is_op_determinism_enabled() == determinism
    finally:
        tf_config.disable_op_determinism()


def test_dropping_in_the_middle_ends_the_threads(small_set: MakeSet) -> None:
    made = small_set()
    before = {thread.name for thread in threading.enumerate()}
    for number in range(6):
        batches = train_batches(made.config, made.index, 0, 1, 0, 10_000)
        for _ in range(number % 3):
            next(batches)
        if number % 2:
            batches.close()
            assert next(batches, None) is None
        del batches
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("records"):
            thread.join(20)
            assert not thread.is_alive()
    assert not {name for name in before if name.startswith("records")}
