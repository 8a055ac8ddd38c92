"""Reading verified blocks of records: bytes that differ from the index never get further than here.

No TensorFlow; a reader's threads are its own.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np

from trainer import storage
from trainer.data.index import Shard, Split
from trainer.data.order import Int64, Window
from trainer.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc
from trainer.errors import DataError

Records = list[bytes]


def read_block(folder: Path, shard: Shard, number: int) -> Records:
    """The serialised Examples of one block.

    Raises:
        DataError: the bytes are not those of the index; names file, record (from 0 in the shard) and reason.
    """
    path, block = folder / shard.file, shard.blocks[number]
    try:
        data = storage.read_range(path, shard.offset(number), block.bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); copy the data set again") from None
    first = shard.first_records()[number]
    if storage.crc32c(data) != block.crc32c or len(data) != block.bytes:
        record, reason = _find_damage(data, block.records)
        raise DataError(f"{path}: record {first + record}: {reason}; copy or prepare the data set again")
    records, at = [], 0
    while at + HEADER_BYTES <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += HEADER_BYTES
        records.append(data[at : at + length])
        at += length + FOOTER_BYTES
    if at != len(data) or len(records) != block.records:
        raise DataError(
            f"{path}: record {first}: its block does not hold the {block.records} records that the index says; "
            "prepare the data set again"
        )
    return records


def _find_damage(data: bytes, records: int) -> tuple[int, str]:
    """(record of the block, what is wrong with it): the first record that is not whole."""
    at = 0
    for record in range(records):
        header = data[at : at + HEADER_BYTES]
        if len(header) < HEADER_BYTES:
            return record, f"truncated, {len(header)} bytes are left of its header of {HEADER_BYTES}"
        length, crc = struct.unpack("<QI", header)
        if masked_crc(header[:8]) != crc:
            return record, "wrong checksum of its length"
        at += HEADER_BYTES
        body = data[at : at + length]
        if len(data) < at + length + FOOTER_BYTES:
            return record, f"truncated, {len(data) - at} bytes are left of {length + FOOTER_BYTES}"
        at += length
        if struct.unpack_from("<I", data, at) != (masked_crc(body),):
            return record, "wrong checksum of its data"
        at += FOOTER_BYTES
    return 0, "its block is whole but is not the one that the index describes"


def open_stream(
    folder: Path, split: Split, windows: Iterator[Window], executor: Executor
) -> Iterator[tuple[Records, Int64]]:
    """(records, record ids) of window after window, each read in the background while the one before is served.

    The first window is asked for at once, so that many streams opened in a row begin together.
    """

    def submit(window: Window | None) -> tuple[Window, list[Future[Records]]] | None:
        if window is None:
            return None
        shards = split.shards
        return window, [executor.submit(read_block, folder, shards[shard], block) for shard, block in window.blocks]

    def serve(current: tuple[Window, list[Future[Records]]] | None) -> Iterator[tuple[Records, Int64]]:
        while current is not None:
            following = submit(next(windows, None))
            window, reads = current
            blocks = [read.result() for read in reads]
            where = zip(window.block_N.tolist(), window.offset_N.tolist(), strict=True)
            yield [blocks[block][offset] for block, offset in where], window.ids_N
            current = following

    return serve(submit(next(windows, None)))


def in_batches(stream: Iterator[tuple[Records, Int64]], size: int) -> Iterator[tuple[Records, Int64]]:
    """The records of a stream ``size`` at a time, over the borders of windows; the last may be shorter."""
    records: deque[bytes] = deque()
    ids_N = np.zeros(0, np.int64)
    for more, more_ids_N in stream:
        records.extend(more)
        ids_N = np.concatenate((ids_N, more_ids_N))
        while len(records) >= size:
            yield [records.popleft() for _ in range(size)], ids_N[:size]
            ids_N = ids_N[size:]
    if records:
        yield list(records), ids_N
