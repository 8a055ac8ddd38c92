"""Batches of images: verified records, in the order of ``order.py``, decoded and augmented in the background.

Records are read by a few Python threads; decoding runs in tf.data with a thread pool of its own. Nothing here depends
on timing: the same call gives the same batches.

Axes: B records of a rank's batch, H W grid, C channels, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import distributed
from trainer.config import RunConfig
from trainer.data import affine, augment, faults, overlap, rotations
from trainer.data.batches import Batch, Batches, Flow
from trainer.data.decoding import Reading, fitted, parsed
from trainer.data.index import Index, split_of
from trainer.data.order import (
    Int64,
    Window,
    lane_windows,
    part_windows,
    position,
    rank_lanes,
    train_order,
)
from trainer.data.pairs import Pairs
from trainer.data.pieces import NextUse, testing_plan, training_plan
from trainer.data.records import Records, Served, in_batches, open_stream
from trainer.data.source import open_source
from trainer.errors import CapsnetError, DataError

RawBatch = tuple[NDArray[np.object_], Int64, NDArray[np.float64], NDArray[np.float32]]


def train_batches(config: RunConfig, index: Index, rank: int, size: int, start_step: int, steps: int) -> Batches:
    """A rank's part of the global batches of steps ``start_step`` (from 0) to ``start_step + steps``.

    Joined in the order of the ranks, the parts are the global batch, at any number of ranks. Reading begins with the
    windows that hold the first batch.

    Returns:
        Batches of image float32 [B, H, W, C] in 0..1, label int32 [B], id int64 [B], whole bool [B]; B = global batch
        / size. ``whole`` is false where a neighbour stands in for a damaged record, see ``data.tolerate_damaged``.
        With ``data.overlap`` image is a scene of the record and a partner of another class, label [B, 2] theirs, and
        sources float32 [B, 2, H, W, C] either alone; a scene is damaged with either of its records.

    Raises:
        ConfigError: the number of ranks does not divide the lanes; the cache cannot be used.
        DataError: no such split; while iterating, a record that is damaged or does not fit.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    order = train_order(config, index)
    lanes = rank_lanes(order.lanes, rank, size)
    stop_step = start_step + steps
    source = open_source(
        config,
        index,
        order.split,
        lambda pieces: training_plan(order, pieces, lanes, start_step, stop_step),
        lambda pieces: NextUse(order, pieces),
    )
    source.now = start_step
    reading = Reading(config, index, source, training=True)
    damaged: set[int] = set()

    def raw(first: int) -> Iterator[RawBatch]:
        with _streams(reading, [lane_windows(order, lane, first, stop_step) for lane in lanes], damaged) as streams:
            batches = [in_batches(stream, order.lane_batch * config.objects) for stream in streams]
            for step, parts in enumerate(zip(*batches, strict=True), first):
                source.now = step
                ids_B = np.concatenate([part.ids_N for part in parts])
                draws_BD = augment.draws(config.seed, position(order, step)[0], ids_B)
                whole_B = np.concatenate([part.whole_N for part in parts]).astype(np.float32)
                yield _objects([record for part in parts for record in part.records]), ids_B, draws_BD, whole_B

    count = len(lanes) * order.lane_batch * config.objects
    return _batches(lambda batch: raw(start_step + batch), count, reading, damaged)


def test_batches(config: RunConfig, index: Index, rank: int, size: int) -> Batches:
    """A rank's share of the test split: over all ranks each record exactly once, at any number of ranks.

    Ranks may get different numbers of batches, and none where there are fewer records than ranks.

    Returns:
        Batches as of ``train_batches`` with B = evaluate.batch_size, and weight float32 [B], 0 for padding and for
        damaged records that are done without.

    Raises:
        DataError, StorageError, StorageRefused: as ``train_batches``.
    """
    split = split_of(index, config.data.test_split)
    whole_windows = config.data.overlap.enabled
    source = open_source(
        config, index, split, lambda pieces: testing_plan(split, pieces, rank, size, whole_windows=whole_windows)
    )
    reading = Reading(config, index, source, training=False)
    count, objects = config.evaluate.batch_size * config.objects, config.objects
    damaged: set[int] = set()

    def raw(first: int) -> Iterator[RawBatch]:
        windows = part_windows(split, rank, size, whole_windows=whole_windows)
        with _streams(reading, [windows], damaged) as streams:
            for number, (records, ids, whole) in enumerate(in_batches(streams[0], count)):
                source.now = number
                if number >= first:
                    missing = count - len(records)
                    weight_B = np.concatenate((whole, np.zeros(missing))).astype(np.float32)
                    padding = missing // objects
                    ids_B = np.concatenate((ids, np.tile(ids[-objects:], padding)))
                    draws_BD = augment.draws(config.seed, 0, ids_B)  # tests are the same after any training
                    yield _objects(records + records[-objects:] * padding), ids_B, draws_BD, weight_B

    return _batches(raw, count, reading, damaged)


def prepare_images(config: RunConfig, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images as the tests see them: uint8 [N, H, W, C] to float32 [N, image_size, image_size, C] in 0..1.

    Raises:
        DataError: another type, number of axes or channels, or a size that cannot be brought to the model's.
    """
    size, channels, resize = config.model.image_size, config.model.channels, config.data.augment.resize
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != channels:
        raise DataError(f"images are {images.dtype} {list(images.shape)}: give uint8 [N, height, width, {channels}]")
    wrong = faults.of_size(images.shape[1], images.shape[2], size, resize)
    if wrong:
        raise DataError(f"images: {wrong}; bring them to that size")
    fitted: NDArray[np.float32] = augment.to_unit(augment.central_fit(tf.constant(images), size, resize)).numpy()
    return fitted


def _batches(raw: Callable[[int], Iterator[RawBatch]], batch_size: int, reading: Reading, damaged: set[int]) -> Batches:
    """Batches from raw ones; ``damaged`` are the ids of records that turned out to be, which ``raw`` does without."""

    def open_from(first: int) -> tuple[tf.data.Dataset, Flow]:
        flow = Flow()

        def watched() -> Iterator[RawBatch]:
            try:
                for batch in raw(first):
                    flow.read += 1
                    yield batch
            except CapsnetError as error:
                flow.failure = error
                raise

        return _decoded(_source(watched, batch_size), reading, flow), flow

    def explain(batch: int) -> bool:
        found = faults.of_batch(next(raw(batch)), reading)
        if found and (not reading.config.data.tolerate_damaged or found.keys() <= damaged):
            raise DataError(next(iter(found.values())))
        damaged.update(found)
        return bool(found)

    batches = Batches(open_from, explain)
    batches.on_close(reading.source.close)
    return batches


@contextmanager
def _streams(reading: Reading, lanes: list[Iterator[Window]], damaged: set[int]) -> Iterator[list[Iterator[Served]]]:
    """A stream for each lane; on leaving, reads that nobody waits for any more are given up."""
    config = reading.config
    executor: Executor = ThreadPoolExecutor(max(readers(config), reading.source.parallel), "records")
    spare = damaged.__contains__ if config.data.tolerate_damaged else None
    arrange = Pairs(reading.index, config.seed) if config.data.overlap.enabled else None
    try:
        yield [open_stream(reading.source, windows, executor, spare, arrange) for windows in lanes]
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


def _decoded(source: tf.data.Dataset, reading: Reading, flow: Flow) -> tf.data.Dataset:
    """Raw batches as the batches that ``train_batches`` and ``test_batches`` promise."""
    data, training = reading.config.data, reading.training

    def parse(serialized_B: tf.Tensor, *others: tf.Tensor) -> tuple[Any, ...]:
        return *parsed(flow.counting("read_taken", serialized_B), reading.index), *others

    def decode(encoded: tf.Tensor, label: tf.Tensor, identity: tf.Tensor, draws_D: tf.Tensor, weight: tf.Tensor) -> Any:
        return fitted(encoded, draws_D, reading), label, identity, draws_D, weight

    def decoded(images_BHWC: tf.Tensor, *others: tf.Tensor) -> tuple[Any, ...]:
        return flow.counting("decoded", images_BHWC), *others

    def finish(
        images_BHWC: tf.Tensor, label_B: tf.Tensor, ids_B: tf.Tensor, draws_BD: tf.Tensor, weight_B: tf.Tensor
    ) -> Batch:
        images_BHWC = flow.counting("decoded_taken", images_BHWC)
        if training:
            images_BHWC = augment.shifted_and_flipped(images_BHWC, draws_BD, data.augment)
        elif data.affine.enabled:
            images_BHWC = affine.transformed(images_BHWC, draws_BD, data.affine)
        if data.rotations > 1:
            images_BHWC, label_B = rotations.turned(images_BHWC, label_B, draws_BD, data.rotations)
        batch = {"label": label_B, "id": ids_B}
        if data.overlap.enabled:  # pairs, one after the other
            images_BHWC, sources_BNHWC = overlap.scenes(
                images_BHWC[::2], images_BHWC[1::2], draws_BD[::2], data.overlap.shift
            )
            batch = {"label": tf.reshape(label_B, [-1, 2]), "id": ids_B[::2]}
            batch["sources"] = augment.to_unit(sources_BNHWC)
            weight_B = weight_B[::2]
        batch["image"] = augment.to_unit(images_BHWC)
        return {**batch, "whole": weight_B > 0} if training else {**batch, "weight": weight_B}

    def finished(batch: Batch) -> Batch:
        return {**batch, "image": flow.counting("augmented", batch["image"])}

    plain = tf.autograph.experimental.do_not_convert  # these are graph code as they stand
    return (
        source.prefetch(1)
        .map(plain(parse))
        .unbatch()
        .map(plain(decode), num_parallel_calls=readers(reading.config))
        .batch(source.element_spec[0].shape[0], drop_remainder=True)
        .map(plain(decoded))
        .prefetch(1)
        .map(plain(finish))
        .map(plain(finished))
        .prefetch(data.prefetch)
        .with_options(tf_data_options(readers(reading.config)))
    )


def readers(config: RunConfig) -> int:
    """How much is read and decoded at a time, by this rank."""
    return config.data.readers or distributed.placed().cores


def tf_data_options(threads: int) -> tf.data.Options:
    """In order, and on threads of its own."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options
