"""The order of the records: a function of (index, seed, epoch, lanes, shuffle window, interleaving) alone.

    epoch    its shards are permuted and dealt to the lanes in turn
    lane     takes its shards in groups of ``interleave_shards``; in a group, the blocks of each shard are permuted
             and the shards give one block each in turn
    window   consecutive blocks of a lane, at least ``shuffle_window`` records (all of them where the lane has fewer);
             the records of a window are permuted
    batch k  of an epoch = for lane 0..L-1 that lane's records [k b, (k+1) b), b = global batch / L

Rank r of n owns lanes [r L/n, (r+1) L/n), so the global batches are the same at any n that divides L.
Every step of every epoch exists: ``steps_per_epoch`` is a bound that no dealing of shards falls below.

Axes: N records of a window or batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from trainer.config import RunConfig
from trainer.data.index import Index, Split, split_of, steps_per_epoch
from trainer.errors import ConfigError

Int64 = NDArray[np.int64]

SHARDS, BLOCKS, RECORDS = range(3)  # what a permutation is of: part of its key
RECORDS_OF_SHARD = 2**32
TEST_WINDOW = 256
"""Fewest records of a test split that are paired with each other: a block may be a single record."""


@dataclass(frozen=True)
class Window:
    """Records that are read together, in the order in which they are served.

    ``blocks`` are (shard, block) pairs; record n is record ``offset_N[n]`` of ``blocks[block_N[n]]``. Those outside
    of ``served`` are there to be paired with.
    """

    blocks: tuple[tuple[int, int], ...]
    block_N: Int64
    offset_N: Int64
    ids_N: Int64
    served: slice = field(default_factory=lambda: slice(None))
    epoch: int = 0

    @property
    def served_ids_N(self) -> Int64:
        return self.ids_N[self.served]


@dataclass(frozen=True)
class Order:
    """What the order of an endless sequence of epochs depends on. Steps and epochs count from 0."""

    split: Split
    seed: int
    lanes: int
    global_batch: int
    shuffle_window: int
    interleave_shards: int
    whole_windows: bool = False
    """Whether windows come with the records that are not served, where only a part of them is."""

    @property
    def lane_batch(self) -> int:
        return self.global_batch // self.lanes

    @cached_property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.split, self.lanes, self.global_batch)

    @property
    def dropped_per_epoch(self) -> int:
        """Records of the split that an epoch leaves out; other ones in each epoch."""
        return self.split.records - self.steps_per_epoch * self.global_batch

    @cached_property
    def first_records(self) -> tuple[tuple[int, ...], ...]:
        """Number of the first record of each block of each shard."""
        return tuple(shard.first_records() for shard in self.split.shards)


def train_order(config: RunConfig, index: Index) -> Order:
    """The order of the training split. Raises DataError where there is none."""
    data = config.data
    return Order(
        split=split_of(index, data.train_split),
        seed=config.seed,
        lanes=data.lanes,
        global_batch=config.train.global_batch_size,
        shuffle_window=data.shuffle_window,
        interleave_shards=data.interleave_shards,
        whole_windows=data.overlap.enabled,
    )


def window_bytes(order: Order, ranks: int) -> int:
    """What a rank holds of encoded records: of each of its lanes the window that is served and the one after it."""
    split = order.split
    block = max(block.records for shard in split.shards for block in shard.blocks)
    window = min(order.shuffle_window + block - 1, split.records // order.lanes)
    size = sum(shard.bytes for shard in split.shards) / split.records
    return round(2 * window * size * order.lanes / ranks)


def position(order: Order, step: int) -> tuple[int, int]:
    """(epoch, batch of that epoch) of a global step."""
    return divmod(step, order.steps_per_epoch)


def record_id(shard: int, record: int) -> int:
    """The number of a record within its split, whatever the lanes."""
    return shard * RECORDS_OF_SHARD + record


def record_place(identity: int) -> tuple[int, int]:
    """(shard, record in shard) of a record id."""
    return divmod(identity, RECORDS_OF_SHARD)


def rank_lanes(lanes: int, rank: int, size: int) -> range:
    """The lanes that a rank owns. Raises ConfigError where the number of ranks does not divide the lanes."""
    if lanes % size:
        raise ConfigError(f"{size} ranks do not divide data.lanes {lanes}: change the number of ranks, or data.lanes")
    share = lanes // size
    return range(rank * share, (rank + 1) * share)


def lane_shards(order: Order, epoch: int, lane: int) -> list[int]:
    """Numbers of the shards that a lane reads in an epoch, in the order of reading."""
    dealt = _permutation(len(order.split.shards), order.seed, SHARDS, epoch)
    return [int(shard) for shard in dealt[lane :: order.lanes]]


def lane_windows(order: Order, lane: int, start_step: int, stop_step: int) -> Iterator[Window]:
    """What a lane serves for the steps from start to stop, cut to just these, computed as it is asked for."""
    step = start_step
    while step < stop_step:
        epoch, batch = position(order, step)
        stop = min(order.steps_per_epoch, batch + stop_step - step)
        yield from _epoch_windows(order, epoch, lane, batch * order.lane_batch, stop * order.lane_batch)
        step += stop - batch


def lane_reads(order: Order, epoch: int, lane: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(step, blocks as (shard, block)) of each window of a lane in an epoch: by that step its blocks have been read."""
    at = 0
    for blocks in _cut_into_windows(order.split, _lane_blocks(order, epoch, lane), order.shuffle_window):
        batch = at // order.lane_batch
        if batch >= order.steps_per_epoch:
            return
        yield epoch * order.steps_per_epoch + batch, blocks
        at += sum(order.split.shards[shard].blocks[block].records for shard, block in blocks)


def batch_ids(order: Order, step: int, lanes: range | None = None) -> Int64:
    """Record ids of a global batch [global batch], or of the part of it that some lanes hold."""
    owned = range(order.lanes) if lanes is None else lanes
    parts = [window.served_ids_N for lane in owned for window in lane_windows(order, lane, step, step + 1)]
    return np.concatenate(parts)


def dropped_ids(order: Order, epoch: int) -> Int64:
    """Record ids of the tail that an epoch leaves out [dropped_per_epoch]."""
    served = order.steps_per_epoch * order.lane_batch
    parts = [
        window.served_ids_N
        for lane in range(order.lanes)
        for window in _epoch_windows(order, epoch, lane, served, order.split.records)
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def part_windows(split: Split, rank: int, size: int, whole_windows: bool = False) -> Iterator[Window]:
    """A rank's share of a split, unshuffled, a block at a time: over all ranks each record exactly once.

    Args:
        whole_windows: several blocks at a time, with the records of theirs that other ranks serve.
    """
    first, stop = split.records * rank // size, split.records * (rank + 1) // size
    first_records = tuple(shard.first_records() for shard in split.shards)
    blocks = [(number, block) for number, shard in enumerate(split.shards) for block in range(len(shard.blocks))]
    at = 0
    for together in _cut_into_windows(split, blocks, TEST_WINDOW if whole_windows else 1):
        sizes = _sizes(split, together)
        count = int(sizes.sum())
        low, high = max(first - at, 0), min(stop - at, count)
        if low < high:
            window = _window(first_records, together, sizes, np.arange(count), slice(low, high))
            yield window if whole_windows else _only_served(window)
        at += count


def _epoch_windows(order: Order, epoch: int, lane: int, first: int, stop: int) -> Iterator[Window]:
    """The windows that hold records [first, stop) of a lane in an epoch, cut to these."""
    at = 0
    windows = _cut_into_windows(order.split, _lane_blocks(order, epoch, lane), order.shuffle_window)
    for number, blocks in enumerate(windows):
        sizes = _sizes(order.split, blocks)
        count = int(sizes.sum())
        low, high = max(first - at, 0), min(stop - at, count)
        if low < high:
            picks_N = _permutation(count, order.seed, RECORDS, epoch, lane, number)
            window = _window(order.first_records, blocks, sizes, picks_N, slice(low, high), epoch)
            yield window if order.whole_windows else _only_served(window)
        at += count


def _lane_blocks(order: Order, epoch: int, lane: int) -> list[tuple[int, int]]:
    """All blocks of a lane in an epoch as (shard, block), in the order of reading."""
    shards = lane_shards(order, epoch, lane)
    blocks: list[tuple[int, int]] = []
    for at in range(0, len(shards), order.interleave_shards):
        queues = []
        for shard in shards[at : at + order.interleave_shards]:
            count = len(order.split.shards[shard].blocks)
            queues.append([(shard, int(block)) for block in _permutation(count, order.seed, BLOCKS, epoch, shard)])
        blocks += [block for row in zip_longest(*queues) for block in row if block is not None]
    return blocks


def _cut_into_windows(split: Split, blocks: list[tuple[int, int]], least: int) -> list[list[tuple[int, int]]]:
    """Runs of blocks of at least so many records."""
    windows: list[list[tuple[int, int]]] = [[]]
    records = 0
    for shard, block in blocks:
        if records >= least:
            windows.append([])
            records = 0
        windows[-1].append((shard, block))
        records += split.shards[shard].blocks[block].records
    if len(windows) > 1 and records < least:
        rest = windows.pop()  # too little to shuffle by itself
        windows[-1] += rest
    return windows


def _sizes(split: Split, blocks: list[tuple[int, int]]) -> Int64:
    return np.array([split.shards[shard].blocks[block].records for shard, block in blocks], np.int64)


def _window(
    first_records: tuple[tuple[int, ...], ...],
    blocks: list[tuple[int, int]],
    sizes: Int64,
    picks_N: Int64,
    served: slice,
    epoch: int = 0,
) -> Window:
    """The window whose records are at the given positions in its blocks."""
    ends = np.cumsum(sizes)
    from_N = np.searchsorted(ends, picks_N, side="right")
    offset_N = picks_N - (ends - sizes)[from_N]
    first = np.array([record_id(shard, first_records[shard][block]) for shard, block in blocks], np.int64)
    return Window(tuple(blocks), from_N, offset_N, first[from_N] + offset_N, served, epoch)


def _only_served(window: Window) -> Window:
    """The window without the records that are not served, and the blocks that are not needed."""
    part = window.served
    needed, block_N = np.unique(window.block_N[part], return_inverse=True)
    blocks = tuple(window.blocks[number] for number in needed)
    return Window(blocks, block_N, window.offset_N[part], window.served_ids_N, epoch=window.epoch)


def _permutation(count: int, seed: int, purpose: int, epoch: int, *where: int) -> Int64:
    """A permutation of 0..count-1 that its key determines.

    By sorting raw bits: NumPy promises the streams of its bit generators, but not those of Generator's methods.
    """
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, epoch, *where)))
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)
