from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainer.data.index import Block, Shard, Split
from trainer.data.order import (
    TEST_WINDOW,
    Order,
    Window,
    batch_ids,
    dropped_ids,
    lane_shards,
    lane_windows,
    part_windows,
    position,
    rank_lanes,
    record_id,
    record_place,
    window_bytes,
)
from trainer.errors import ConfigError


def split_of_blocks(*shards: list[int]) -> Split:
    """A split whose shards have blocks of these many records."""
    records = sum(sum(blocks) for blocks in shards)
    return Split(
        records=records,
        class_records=(records, 0),
        shards=tuple(
            Shard(
                file=f"s{number}",
                records=sum(blocks),
                bytes=sum(blocks),
                crc32c=0,
                blocks=tuple(Block(count, count, 0) for count in blocks),
            )
            for number, blocks in enumerate(shards)
        ),
    )


EVEN = split_of_blocks(*[[8, 8, 8, 5]] * 16)
RAGGED = split_of_blocks([4] * 6, [4, 1], [4, 4, 3], [2], [4] * 9, [4, 4], [4, 4, 4, 1], [4] * 5, [3], [4] * 4, [4, 2])


def all_ids(split: Split) -> np.ndarray:
    return np.array(
        [record_id(number, record) for number, shard in enumerate(split.shards) for record in range(shard.records)]
    )


def order_of(split: Split, **changes: int) -> Order:
    facts = {"seed": 5, "lanes": 8, "global_batch": 16, "shuffle_window": 12, "interleave_shards": 2, **changes}
    return Order(split=split, **facts)


ORDERS = [
    order_of(EVEN),
    order_of(EVEN, shuffle_window=1, interleave_shards=1),
    order_of(EVEN, lanes=1, shuffle_window=10_000, interleave_shards=100),
    order_of(EVEN, lanes=16, global_batch=48),
    order_of(RAGGED, lanes=2, global_batch=6),
    order_of(RAGGED, lanes=4, global_batch=4, interleave_shards=3, shuffle_window=20),
    order_of(RAGGED, lanes=1, global_batch=1),
]


@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_and_its_tail_are_the_split_each_record_once(order: Order) -> None:
    assert order.steps_per_epoch > 0
    for epoch in range(3):
        first = epoch * order.steps_per_epoch
        steps = [batch_ids(order, first + batch) for batch in range(order.steps_per_epoch)]
        assert {len(ids) for ids in steps} == {order.global_batch}
        dropped = dropped_ids(order, epoch)
        assert len(dropped) == order.dropped_per_epoch
        np.testing.assert_array_equal(np.sort(np.concatenate([*steps, dropped])), np.sort(all_ids(order.split)))


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8, 11])
def test_every_lane_has_enough_in_any_dealing_and_the_bound_is_the_best_one(lanes: int) -> None:
    order = order_of(RAGGED, lanes=lanes, global_batch=lanes)
    fewest = min(
        sum(order.split.shards[shard].records for shard in lane_shards(order, epoch, lane))
        for epoch in range(300)
        for lane in range(lanes)
    )
    assert fewest >= order.steps_per_epoch
    if lanes in (1, 8, 11):  # where 300 dealings are sure to show the worst
        assert fewest == order.steps_per_epoch


@pytest.mark.parametrize("order", [ORDERS[0], order_of(EVEN, shuffle_window=30, interleave_shards=1)])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_global_batches_do_not_depend_on_the_number_of_ranks(order: Order, size: int) -> None:
    for step in range(2 * order.steps_per_epoch):
        parts = [batch_ids(order, step, rank_lanes(order.lanes, rank, size)) for rank in range(size)]
        assert {len(part) for part in parts} == {order.global_batch // size}
        np.testing.assert_array_equal(np.concatenate(parts), batch_ids(order, step))


def test_ranks_that_do_not_divide_the_lanes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 ranks do not divide data.lanes 8"):
        rank_lanes(8, 0, 3)


def test_a_rank_opens_only_the_shards_of_its_lanes() -> None:
    order = order_of(EVEN)
    for epoch in range(3):
        dealt = [lane_shards(order, epoch, lane) for lane in range(order.lanes)]
        assert sorted(shard for lane in dealt for shard in lane) == list(range(16))
        start = epoch * order.steps_per_epoch
        for lane in range(order.lanes):
            windows = list(lane_windows(order, lane, start, start + order.steps_per_epoch))
            opened = {shard for window in windows for shard, _ in window.blocks}
            assert opened <= set(dealt[lane])


def test_epochs_and_seeds_differ_in_order_and_tail() -> None:
    order = order_of(EVEN, global_batch=24)
    assert order.dropped_per_epoch == 8
    other_seed = replace(order, seed=6)
    epochs = [batch_ids(order, epoch * order.steps_per_epoch).tolist() for epoch in range(4)]
    epochs.append(batch_ids(other_seed, 0).tolist())
    assert len({tuple(lane_shards(order, epoch, 0)) for epoch in range(4)}) == 4
    tails = [tuple(sorted(dropped_ids(order, epoch).tolist())) for epoch in range(4)]
    tails.append(tuple(sorted(dropped_ids(other_seed, 0).tolist())))
    assert len({tuple(ids) for ids in epochs}) == 5
    assert len(set(tails)) == 5


def test_a_window_is_as_large_as_promised_and_mixes_shards() -> None:
    order = order_of(EVEN, lanes=2, global_batch=2, shuffle_window=40, interleave_shards=4)
    windows = list(lane_windows(order, 0, 0, order.steps_per_epoch))
    assert len(windows) > 2
    for window in windows[:-1]:  # the last one is cut where the epoch ends
        assert len(window.ids_N) >= 40
    groups = [lane_shards(order, 0, 0)[at : at + 4] for at in (0, 4)]
    for window in windows:
        shards = {shard for shard, _ in window.blocks}
        assert len(shards) >= 4
        assert np.any(np.diff(window.ids_N) < 0)
    assert {shard for shard, _ in windows[0].blocks} == set(groups[0])
    assert {shard for shard, _ in windows[-1].blocks} == set(groups[1])


def test_blocks_of_a_group_take_turns_and_are_permuted() -> None:
    order = order_of(EVEN, lanes=1, global_batch=1, shuffle_window=1, interleave_shards=2)  # a window is a block
    served = [window.blocks[0] for window in lane_windows(order, 0, 0, order.steps_per_epoch)]
    group = lane_shards(order, 0, 0)[:2]
    assert [shard for shard, _ in served[:8]] == group * 4
    orders = {tuple(block for shard, block in served if shard == number) for number in range(16)}
    assert all(sorted(blocks) == [0, 1, 2, 3] for blocks in orders)
    assert len(orders) > 4


def test_a_rest_too_small_for_a_window_joins_the_one_before() -> None:
    order = order_of(split_of_blocks([5] * 5), lanes=1, global_batch=1, shuffle_window=10)
    assert [len(window.ids_N) for window in lane_windows(order, 0, 0, order.steps_per_epoch)] == [10, 15]


@pytest.mark.parametrize("order", ORDERS)
def test_starting_in_the_middle_goes_on_as_if_from_the_start(order: Order) -> None:
    stop = 2 * order.steps_per_epoch + 1
    for lane in {0, order.lanes - 1}:
        whole = np.concatenate([window.ids_N for window in lane_windows(order, lane, 0, stop)])
        for start in {0, 1, order.steps_per_epoch - 1, order.steps_per_epoch, stop - 1}:
            rest = np.concatenate([window.ids_N for window in lane_windows(order, lane, start, stop)])
            np.testing.assert_array_equal(rest, whole[start * order.lane_batch :])


def test_starting_in_the_middle_reads_one_window_and_not_what_came_before() -> None:
    order = order_of(EVEN, lanes=1, global_batch=1, shuffle_window=29, interleave_shards=1)  # a window is a shard
    window = next(lane_windows(order, 0, 29 * 9 + 28, 10**6))
    assert {shard for shard, _ in window.blocks} == {lane_shards(order, 0, 0)[9]}
    assert len(window.blocks) == 1  # the last record of the window: one of its four blocks is needed


def test_picks_point_at_the_ids() -> None:
    order = order_of(RAGGED, lanes=2, global_batch=6)
    for window in lane_windows(order, 1, 3, 20):
        for block, offset, identity in zip(window.block_N, window.offset_N, window.ids_N, strict=True):
            shard, number = window.blocks[block]
            record = sum(part.records for part in order.split.shards[shard].blocks[:number]) + offset
            assert record_place(int(identity)) == (shard, record)


def test_ids_do_not_depend_on_the_lanes() -> None:
    for lanes in (1, 2, 4, 16):
        order = order_of(EVEN, lanes=lanes, global_batch=16)
        served = np.concatenate([batch_ids(order, step) for step in range(order.steps_per_epoch)])
        assert set(served.tolist()) <= set(all_ids(EVEN).tolist())


def test_position_is_a_division() -> None:
    order = order_of(EVEN)
    assert position(order, 0) == (0, 0)
    assert position(order, 3 * order.steps_per_epoch + 2) == (3, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 200])
def test_parts_of_a_split_are_the_split(size: int) -> None:
    ids = [window.ids_N for rank in range(size) for window in part_windows(RAGGED, rank, size)]
    np.testing.assert_array_equal(np.concatenate(ids), all_ids(RAGGED))


def test_the_order_is_the_one_that_earlier_runs_had() -> None:
    """Written down once: a change here means that no checkpoint resumes exactly."""
    order = order_of(EVEN, seed=2017, lanes=2, global_batch=8)
    places = [record_place(identity) for identity in batch_ids(order, order.steps_per_epoch + 3).tolist()]
    assert places == GOLDEN


GOLDEN = [(15, 23), (15, 16), (15, 21), (15, 22), (6, 9), (4, 26), (4, 27), (6, 28)]


# with the records that are not served, to be paired with


@pytest.mark.parametrize("order", ORDERS)
def test_whole_windows_serve_the_same_and_do_not_depend_on_the_start(order: Order) -> None:
    whole = replace(order, whole_windows=True)
    stop = 2 * order.steps_per_epoch + 1
    for step in range(stop):
        np.testing.assert_array_equal(batch_ids(whole, step), batch_ids(order, step))
    for epoch in range(2):
        np.testing.assert_array_equal(dropped_ids(whole, epoch), dropped_ids(order, epoch))
    for lane in {0, order.lanes - 1}:
        all_windows = {served: tuple(w.ids_N.tolist()) for w in lane_windows(whole, lane, 0, stop) for served in ids(w)}
        for start in {1, order.steps_per_epoch - 1, stop - 1}:
            for window in lane_windows(whole, lane, start, start + 1):
                assert window.epoch == start // order.steps_per_epoch
                assert {all_windows[served] for served in ids(window)} == {tuple(window.ids_N.tolist())}


def ids(window: Window) -> list[tuple[int, int]]:
    return [(window.epoch, identity) for identity in window.served_ids_N.tolist()]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("split", [EVEN, RAGGED])
def test_whole_windows_of_a_test_split(split: Split, size: int) -> None:
    parts = [window for rank in range(size) for window in part_windows(split, rank, size, whole_windows=True)]
    np.testing.assert_array_equal(np.concatenate([window.served_ids_N for window in parts]), all_ids(split))
    of_one = {tuple(window.ids_N.tolist()) for window in part_windows(split, 0, 1, whole_windows=True)}
    assert {tuple(window.ids_N.tolist()) for window in parts} == of_one
    assert min(len(window.ids_N) for window in parts) >= min(TEST_WINDOW, split.records)


def test_memory_of_two_windows_of_each_lane() -> None:
    """ImageNet as its recipe reads it, 1024 shards of 1,251 records of 115 kB."""
    blocks = [64] * 19 + [35]
    split = split_of_blocks(*[blocks] * 1024)
    shards = tuple(shard.model_copy(update={"bytes": 115_000 * shard.records}) for shard in split.shards)
    order = Order(split.model_copy(update={"shards": shards}), 0, 8, 256, 4096, 8)
    assert window_bytes(order, 1) == 2 * 8 * (4096 + 63) * 115_000
    assert window_bytes(order, 8) == window_bytes(order, 1) / 8
    all_of_it = replace(order, shuffle_window=10**7)
    assert window_bytes(all_of_it, 1) == 2 * split.records * 115_000
