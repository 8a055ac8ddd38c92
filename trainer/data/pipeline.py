"""Batches of images: verified records, in the order of ``order.py``, decoded and augmented in the background.

Records are read by a few Python threads; decoding runs in tf.data with a thread pool of its own. Nothing here depends
on timing: the same call gives the same batches.

Axes: B records of a rank's batch, H W grid, C channels, D draws.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import RunConfig
from trainer.data import augment
from trainer.data.index import Index, Split, folder_of, split_of
from trainer.data.order import Int64, lane_windows, part_windows, position, rank_lanes, record_place, train_order
from trainer.data.records import Records, in_batches, open_stream
from trainer.errors import DataError

Batch = dict[str, tf.Tensor]
RawBatch = tuple[NDArray[np.object_], Int64, NDArray[np.float64], NDArray[np.float32]]


@dataclass(frozen=True)
class Reading:
    """What is read, and for what."""

    config: RunConfig
    index: Index
    split: Split
    folder: Path
    training: bool


class Batches(Iterator[Batch]):
    """An iterator over batches; closing or dropping it ends its threads.

    A damaged record ends the iteration, at the batch that holds it, with a DataError that names the record.
    """

    def __init__(self, dataset: tf.data.Dataset, explain: Callable[[int], None]) -> None:
        """``explain(batch)`` raises the DataError that batch's failure deserves, if it finds one."""
        self.element_spec: dict[str, tf.TensorSpec] = dataset.element_spec
        self._explain = explain
        self._served = 0
        self._iterator = [iter(dataset)]
        # also at exit: tf.data threads must not call into a Python that is going down
        self._finalizer = weakref.finalize(self, self._iterator.clear)

    def __next__(self) -> Batch:
        if not self._iterator:
            raise StopIteration
        try:
            batch: Batch = next(self._iterator[0])
        except StopIteration:
            self.close()
            raise
        except tf.errors.OpError:
            self.close()
            self._explain(self._served)
            raise
        self._served += 1
        return batch

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(config: RunConfig, index: Index, rank: int, size: int, start_step: int, steps: int) -> Batches:
    """A rank's part of the global batches of steps ``start_step`` (from 0) to ``start_step + steps``.

    Joined in the order of the ranks, the parts are the global batch, at any number of ranks. Reading begins with the
    windows that hold the first batch.

    Returns:
        Batches of image float32 [B, H, W, C] in 0..1, label int32 [B], id int64 [B]; B = global batch / size.

    Raises:
        ConfigError: the number of ranks does not divide the lanes.
        DataError: no such split; while iterating, a record that is damaged or does not fit.
    """
    order = train_order(config, index)
    lanes = rank_lanes(order.lanes, rank, size)
    reading = Reading(config, index, order.split, folder_of(config.data.uri), training=True)

    def raw(first: int, stop: int) -> Iterator[RawBatch]:
        weight_B = np.ones(len(lanes) * order.lane_batch, np.float32)
        with _readers(config) as executor:
            streams = []
            for lane in lanes:
                stream = open_stream(reading.folder, order.split, lane_windows(order, lane, first, stop), executor)
                streams.append(in_batches(stream, order.lane_batch))
            for step, parts in enumerate(zip(*streams, strict=True), first):
                ids_B = np.concatenate([ids for _, ids in parts])
                draws_BD = augment.draws(config.seed, position(order, step)[0], ids_B)
                yield _objects([record for records, _ in parts for record in records]), ids_B, draws_BD, weight_B

    def explain(batch: int) -> None:
        _find_culprit(raw(start_step + batch, start_step + steps), reading)  # to the same end: the same windows

    source = _source(lambda: raw(start_step, start_step + steps), len(lanes) * order.lane_batch)
    return Batches(_decoded(source, reading), explain)


def test_batches(config: RunConfig, index: Index, rank: int, size: int) -> Batches:
    """A rank's share of the test split: over all ranks each record exactly once, at any number of ranks.

    Ranks may get different numbers of batches, and none where there are fewer records than ranks.

    Returns:
        Batches as of ``train_batches`` with B = evaluate.batch_size, and weight float32 [B], 0 for padding.

    Raises:
        DataError: as ``train_batches``.
    """
    split = split_of(index, config.data.test_split)
    reading = Reading(config, index, split, folder_of(config.data.uri), training=False)
    batch_size = config.evaluate.batch_size

    def raw(first: int) -> Iterator[RawBatch]:
        draws_BD = np.zeros((batch_size, augment.DRAWS))
        with _readers(config) as executor:
            stream = open_stream(reading.folder, split, part_windows(split, rank, size), executor)
            for number, (records, ids) in enumerate(in_batches(stream, batch_size)):
                if number >= first:
                    missing = batch_size - len(records)
                    weight_B = np.concatenate((np.ones(len(records)), np.zeros(missing))).astype(np.float32)
                    ids_B = np.concatenate((ids, np.repeat(ids[-1:], missing)))
                    yield _objects(records + records[-1:] * missing), ids_B, draws_BD, weight_B

    def explain(batch: int) -> None:
        _find_culprit(raw(batch), reading)

    source = _source(lambda: raw(0), batch_size)
    return Batches(_decoded(source, reading), explain)


def prepare_images(config: RunConfig, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images as the tests see them: uint8 [N, H, W, C] to float32 [N, image_size, image_size, C] in 0..1.

    Raises:
        DataError: another type, number of axes or channels, or a size that cannot be brought to the model's.
    """
    size, channels, resize = config.model.image_size, config.model.channels, config.data.augment.resize
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != channels:
        raise DataError(f"images are {images.dtype} {list(images.shape)}: give uint8 [N, height, width, {channels}]")
    wrong = _size_fault(images.shape[1], images.shape[2], size, resize)
    if wrong:
        raise DataError(f"images: {wrong}; bring them to that size")
    fitted: NDArray[np.float32] = augment.to_unit(augment.central_fit(tf.constant(images), size, resize)).numpy()
    return fitted


@contextmanager
def _readers(config: RunConfig) -> Iterator[Executor]:
    """Threads that read blocks; on leaving, reads that nobody waits for any more are given up."""
    executor = ThreadPoolExecutor(config.data.readers, "records")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _objects(records: Records) -> NDArray[np.object_]:
    """Byte strings as TensorFlow takes them unharmed; an ordinary NumPy array would strip trailing zero bytes."""
    array = np.empty(len(records), object)
    array[:] = records
    return array


def _source(raw: Callable[[], Iterator[RawBatch]], batch_size: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        raw,
        output_signature=(
            tf.TensorSpec((batch_size,), tf.string),
            tf.TensorSpec((batch_size,), tf.int64),
            tf.TensorSpec((batch_size, augment.DRAWS), tf.float64),
            tf.TensorSpec((batch_size,), tf.float32),
        ),
    )


def _decoded(source: tf.data.Dataset, reading: Reading) -> tf.data.Dataset:
    """Raw batches as the batches that ``train_batches`` and ``test_batches`` promise."""
    data, training = reading.config.data, reading.training

    def parse(serialized_B: tf.Tensor, *others: tf.Tensor) -> tuple[Any, ...]:
        return *_parsed(serialized_B, reading.index), *others

    def decode(encoded: tf.Tensor, label: tf.Tensor, identity: tf.Tensor, draws_D: tf.Tensor, weight: tf.Tensor) -> Any:
        return _fitted(encoded, draws_D, reading), label, identity, draws_D, weight

    def finish(
        images_BHWC: tf.Tensor, label_B: tf.Tensor, ids_B: tf.Tensor, draws_BD: tf.Tensor, weight_B: tf.Tensor
    ) -> Batch:
        if training:
            images_BHWC = augment.shifted_and_flipped(images_BHWC, draws_BD, data.augment)
        batch = {"image": augment.to_unit(images_BHWC), "label": label_B, "id": ids_B}
        return batch if training else {**batch, "weight": weight_B}

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = data.readers
    options.threading.max_intra_op_parallelism = 1
    plain = tf.autograph.experimental.do_not_convert  # these are graph code as they stand
    return (
        source.map(plain(parse))
        .unbatch()
        .map(plain(decode), num_parallel_calls=data.readers)
        .batch(source.element_spec[0].shape[0], drop_remainder=True)
        .map(plain(finish))
        .prefetch(data.prefetch)
        .with_options(options)
    )


def _parsed(serialized_B: tf.Tensor, index: Index) -> tuple[tf.Tensor, tf.Tensor]:
    """(encoded images string [B], labels int32 [B], from 0)."""
    layout, classes = index.layout, tf.constant(len(index.classes), tf.int64)
    features = tf.io.parse_example(
        serialized_B,
        {layout.image: tf.io.FixedLenFeature((), tf.string), layout.label: tf.io.FixedLenFeature((), tf.int64)},
    )
    label_B = features[layout.label] - layout.first_label
    in_range = [tf.debugging.assert_non_negative(label_B), tf.debugging.assert_less(label_B, classes)]
    with tf.control_dependencies(in_range):
        return features[layout.image], tf.cast(label_B, tf.int32)


def _fitted(encoded: tf.Tensor, draws_D: tf.Tensor, reading: Reading) -> tf.Tensor:
    """One encoded image as uint8 [image_size, image_size, C]."""
    size, resize = reading.config.model.image_size, reading.config.data.augment.resize
    image_HWC = tf.io.decode_png(encoded, channels=reading.config.model.channels)  # takes JPEG as well
    if reading.training:
        return augment.random_fit(image_HWC, size, resize, draws_D)
    return augment.central_fit(image_HWC, size, resize)


def _size_fault(height: int, width: int, size: int, resize: str) -> str:
    """What is wrong with an image's size, or an empty string."""
    if resize == "none" and not height == width == size:
        return f"{height}x{width} pixels, the model takes {size}x{size}"
    if resize == "crop" and min(height, width) < size:
        return f"{height}x{width} pixels, too small for crops of {size}x{size}"
    return ""


def _find_culprit(batches: Iterator[RawBatch], reading: Reading) -> None:
    """Reads the first of some raw batches again, record by record. Raises DataError at the first that is wrong."""
    for serialized_B, ids_B, draws_BD, _ in batches:
        for serialized, identity, draws_D in zip(serialized_B, ids_B.tolist(), draws_BD, strict=True):
            fault = _record_fault(serialized, draws_D, reading)
            if fault:
                shard, record = record_place(identity)
                path = reading.folder / reading.split.shards[shard].file
                raise DataError(f"{path}: record {record}: {fault}; leave it out and prepare the data set again")
        return


def _record_fault(serialized: bytes, draws_D: NDArray[np.float64], reading: Reading) -> str:
    """What is wrong with a record whose bytes are whole, or an empty string."""
    config, layout = reading.config, reading.index.layout
    keys = {layout.image: tf.io.VarLenFeature(tf.string), layout.label: tf.io.VarLenFeature(tf.int64)}
    try:
        features = tf.io.parse_single_example(serialized, keys)
    except tf.errors.OpError:
        return f"not a tf.train.Example with {layout.image} and {layout.label}"
    images, labels = features[layout.image].values.numpy(), features[layout.label].values.numpy()
    if len(images) != 1 or len(labels) != 1:
        return f"holds {len(images)} values of {layout.image} and {len(labels)} of {layout.label}, not one of each"
    first, last = layout.first_label, layout.first_label + len(reading.index.classes) - 1
    if not first <= labels[0] <= last:
        return f"label {labels[0]} is not in {first}..{last}"
    try:
        height, width, _ = tf.io.decode_png(images[0], channels=config.model.channels).shape
    except tf.errors.OpError as error:
        return f"not an image ({str(error.message).splitlines()[0][:80]})"
    wrong = _size_fault(height, width, config.model.image_size, config.data.augment.resize)
    if wrong:
        return wrong
    try:
        _fitted(tf.constant(images[0]), tf.constant(draws_D), reading)
    except tf.errors.OpError as error:
        return str(error.message).splitlines()[0]
    return ""
