"""Reading verified blocks of records: bytes that differ from the index never get further than here.

No TensorFlow; a reader's threads are its own.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer import storage
from trainer.data.order import Int64, Window
from trainer.data.source import Source
from trainer.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc
from trainer.errors import DataError

Records = list[bytes]


class Served(NamedTuple):
    """Records in the order of training [N]; where ``whole_N`` is false, a neighbour stands in for a damaged record."""

    records: Records
    ids_N: Int64
    whole_N: NDArray[np.bool_]


Arrange = Callable[[list[bytes | str], Window, Callable[[int], bool] | None], Served]
"""Of the records of a window, what is wrong with those that are damaged, and ``spare``."""


def read_block(source: Source, shard: int, number: int) -> Records:
    """The serialised Examples of one block.

    Raises:
        DataError: the bytes are not those of the index; names file, record (from 0 in the shard) and reason.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    records = salvage_block(source, shard, number)
    for record, found in enumerate(records):
        if isinstance(found, str):
            first = source.split.shards[shard].first_records()[number]
            raise DataError(
                f"{source.path(shard)}: record {first + record}: {found}; copy or prepare the data set again"
            )
    return [record for record in records if isinstance(record, bytes)]


def salvage_block(source: Source, shard: int, number: int) -> list[bytes | str]:
    """Of each record of a block its bytes, or what is wrong with it; otherwise as ``read_block``."""
    path, entry = source.path(shard), source.split.shards[shard]
    block = entry.blocks[number]
    try:
        data = source.block(shard, number)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); copy the data set again") from None
    if storage.crc32c(data) != block.crc32c or len(data) != block.bytes:
        return _salvaged(data, block.records)
    records: list[bytes | str] = []
    at = 0
    while at + HEADER_BYTES <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += HEADER_BYTES
        records.append(data[at : at + length])
        at += length + FOOTER_BYTES
    if at != len(data) or len(records) != block.records:
        raise DataError(
            f"{path}: record {entry.first_records()[number]}: its block does not hold the {block.records} records "
            "that the index says; prepare the data set again"
        )
    return records


def _salvaged(data: bytes, records: int) -> list[bytes | str]:
    """What can be told of each record of a damaged block; all are in doubt where their number comes out wrong."""
    found: list[bytes | str] = []
    at = 0
    while len(found) < records:
        header = data[at : at + HEADER_BYTES]
        if len(header) < HEADER_BYTES:
            found.append(f"truncated, {len(header)} bytes are left of its header of {HEADER_BYTES}")
            break
        if not _is_header(header):
            found.append("wrong checksum of its length")
            at = _next_header(data, at + 1)
            continue
        (length,) = struct.unpack_from("<Q", header)
        body = data[at + HEADER_BYTES : at + HEADER_BYTES + length]
        left = len(data) - at - HEADER_BYTES
        if left < length + FOOTER_BYTES:
            found.append(f"truncated, {left} bytes are left of {length + FOOTER_BYTES}")
            break
        at += HEADER_BYTES + length
        whole = struct.unpack_from("<I", data, at) == (masked_crc(body),)
        found.append(body if whole else "wrong checksum of its data")
        at += FOOTER_BYTES
    first = next((number for number, one in enumerate(found) if isinstance(one, str)), None)
    if first is None:
        return ["its block is whole but is not the one that the index describes"] * records
    if at == len(data) and len(found) == records:
        return found
    return [*found[:first], *[found[first]] * (records - first)]


def _is_header(header: bytes) -> bool:
    return struct.unpack_from("<I", header, 8) == (masked_crc(header[:8]),)


def _next_header(data: bytes, start: int) -> int:
    """Where the next record begins whose length is whole and lies within the data; the end where there is none."""
    for at in range(start, len(data) - HEADER_BYTES - FOOTER_BYTES + 1):
        (length,) = struct.unpack_from("<Q", data, at)
        if length <= len(data) - at - HEADER_BYTES - FOOTER_BYTES and _is_header(data[at : at + HEADER_BYTES]):
            return at
    return len(data)


def open_stream(
    source: Source,
    windows: Iterator[Window],
    executor: Executor,
    spare: Callable[[int], bool] | None = None,
    arrange: Arrange | None = None,
) -> Iterator[Served]:
    """Window after window, each read in the background while the one before is served.

    The first window is asked for at once, so that many streams opened in a row begin together.

    Args:
        spare: whether to do without a record, by its id; given, damaged records are done without as well.
        arrange: makes what is served of the records of a window; without it, they are served as they are.
    """
    arranged = arrange or _completed
    read = read_block if spare is None else salvage_block

    def submit(window: Window | None) -> tuple[Window, list[Future[list[bytes | str]]]] | None:
        if window is None:
            return None
        return window, [executor.submit(read, source, shard, block) for shard, block in window.blocks]  # type: ignore[arg-type]

    def serve(current: tuple[Window, list[Future[list[bytes | str]]]] | None) -> Iterator[Served]:
        while current is not None:
            following = submit(next(windows, None))
            window, reads = current
            blocks = [read.result() for read in reads]
            where = zip(window.block_N.tolist(), window.offset_N.tolist(), strict=True)
            records = [blocks[block][offset] for block, offset in where]
            yield arranged(records, window, spare)
            current = following

    return serve(submit(next(windows, None)))


def _completed(records: list[bytes | str], window: Window, spare: Callable[[int], bool] | None) -> Served:
    """With the next whole record of the window, or else the one before, in the place of each that is not."""
    ids_N = window.ids_N
    whole_N = np.array([isinstance(record, bytes) for record in records])
    if spare is not None:
        whole_N &= ~np.array([spare(identity) for identity in ids_N.tolist()])
    if not whole_N.all():
        places = np.flatnonzero(whole_N)
        if not len(places):
            raise DataError(f"{len(records)} records that are read together are all damaged; copy the data set again")
        for number in np.flatnonzero(~whole_N):
            following = int(np.searchsorted(places, number))
            records[number] = records[places[min(following, len(places) - 1)]]
    return Served([record for record in records if isinstance(record, bytes)], ids_N, whole_N)


def in_batches(stream: Iterator[Served], size: int) -> Iterator[Served]:
    """The records of a stream ``size`` at a time, over the borders of windows; the last may be shorter."""
    records: deque[bytes] = deque()
    ids_N, whole_N = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    for more, more_ids_N, more_whole_N in stream:
        records.extend(more)
        ids_N, whole_N = np.concatenate((ids_N, more_ids_N)), np.concatenate((whole_N, more_whole_N))
        while len(records) >= size:
            yield Served([records.popleft() for _ in range(size)], ids_N[:size], whole_N[:size])
            ids_N, whole_N = ids_N[size:], whole_N[size:]
    if records:
        yield Served(list(records), ids_N, whole_N)
