"""What is fetched at a time: a piece, some consecutive blocks of a shard; and when training will need each.

Small shards are one piece, large ones many: requests are long enough to hide latency, and short enough that a resume
in the middle of a shard, or a small cache, need not take the whole of it. Nothing is read here.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from trainer.data.index import Shard, Split
from trainer.data.order import Order, Window, lane_reads, lane_windows, part_windows, position

PIECE_BYTES = 8 * 2**20
NEVER = float("inf")


class Piece(NamedTuple):
    """Blocks [first, stop) of a shard, which are bytes [offset, offset + bytes) of its file."""

    shard: int
    first: int
    stop: int
    offset: int
    bytes: int


class Planned(NamedTuple):
    """A piece, and the step that first needs it."""

    step: int
    piece: Piece


class Pieces:
    """The pieces of a split. A key names a piece by its content: another run, or a copy elsewhere, has the same."""

    def __init__(self, split: Split) -> None:
        self._of_shard = [_cut(number, shard) for number, shard in enumerate(split.shards)]
        self._shards = split.shards
        self.key = cache(self._key)

    def holding(self, shard: int, block: int) -> Piece:
        pieces = self._of_shard[shard]
        return pieces[bisect_right([piece.first for piece in pieces], block) - 1]

    def _key(self, piece: Piece) -> str:
        shard = self._shards[piece.shard]
        content = (shard.crc32c, shard.bytes, piece.offset, [tuple(b) for b in shard.blocks[piece.first : piece.stop]])
        return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def _cut(number: int, shard: Shard) -> list[Piece]:
    pieces: list[Piece] = []
    first = offset = size = 0
    for block, (_, length, _) in enumerate(shard.blocks):
        if size and size + length > PIECE_BYTES:
            pieces.append(Piece(number, first, block, offset, size))
            first, offset, size = block, offset + size, 0
        size += length
    return [*pieces, Piece(number, first, len(shard.blocks), offset, size)]


def training_plan(order: Order, pieces: Pieces, lanes: range, start_step: int, stop_step: int) -> Iterator[Planned]:
    """The pieces that some lanes need for the steps from start to stop, in the order of need; each once a window."""

    def of_lane(lane: int) -> Iterator[Planned]:
        records = 0
        for window in lane_windows(order, lane, start_step, stop_step):
            yield from _of_window(pieces, window, start_step + records // order.lane_batch)
            records += len(window.served_ids_N)

    return heapq.merge(*(of_lane(lane) for lane in lanes))


def testing_plan(split: Split, pieces: Pieces, rank: int, size: int, whole_windows: bool) -> Iterator[Planned]:
    """The pieces of a rank's share of a split, each once."""
    before = None
    for number, window in enumerate(part_windows(split, rank, size, whole_windows)):
        for planned in _of_window(pieces, window, number):
            if planned.piece != before:
                yield planned
            before = planned.piece


def _of_window(pieces: Pieces, window: Window, step: int) -> Iterator[Planned]:
    needed = dict.fromkeys(pieces.holding(shard, block) for shard, block in window.blocks)
    return iter(sorted(Planned(step, piece) for piece in needed))


class NextUse:
    """When a piece will be read again by any rank: what a cache that must drop something asks."""

    def __init__(self, order: Order, pieces: Pieces) -> None:
        self._order, self._pieces = order, pieces
        self._epochs: dict[int, dict[str, list[int]]] = {}

    def __call__(self, key: str, now: int) -> float:
        """First step after ``now`` by which the piece must have been read; NEVER if not in this epoch or the next."""
        epoch, _ = position(self._order, now)
        for candidate in (epoch, epoch + 1):
            steps = self._of_epoch(candidate).get(key, [])
            at = bisect_right(steps, now)
            if at < len(steps):
                return steps[at]
        return NEVER

    def _of_epoch(self, epoch: int) -> dict[str, list[int]]:
        if epoch not in self._epochs:
            uses: dict[str, set[int]] = {}
            for lane in range(self._order.lanes):
                for step, blocks in lane_reads(self._order, epoch, lane):
                    for piece in {self._pieces.holding(shard, block) for shard, block in blocks}:
                        uses.setdefault(self._pieces.key(piece), set()).add(step)
            found = {key: sorted(steps) for key, steps in uses.items()}
            self._epochs = {other: self._epochs[other] for other in self._epochs if other == epoch - 1}
            self._epochs[epoch] = found
        return self._epochs[epoch]
