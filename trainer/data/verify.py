"""Reads a whole data set as training would, and lists everything that is wrong with it.

Every checksum is compared and every record parsed and decoded, by TensorFlow: Pillow takes some images that it refuses.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from trainer import storage
from trainer.data.examine import Examiner, examiner_of
from trainer.data.index import INDEX_FILE, Index, Shard, Split, folder_of, read_index, shards_of
from trainer.data.records import salvage_block
from trainer.data.source import Source
from trainer.data.tfrecord import joined_crc, split_records
from trainer.errors import DataError, ObjectChanged, StorageRefused
from trainer.progress import Progress, clock, terminal_columns

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.2
NAMED_EXTRAS = 5
REREADS = 3


@dataclass
class Found:
    """What one shard turned out to hold."""

    records: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Work:
    """What all threads share."""

    index: Index
    folder: storage.Location
    entries: dict[str, storage.Entry]
    examiner: Examiner
    seen: int = 0
    stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, records: int) -> None:
        with self.lock:
            self.seen += records


def run(uri: str, workers: int, out: Callable[[str], None]) -> int:
    """The number of faults; each has been given to ``out`` as a line of file, record (from 0 in the file) and reason.

    Consecutive records with the same fault are one. Files that the index does not name are mentioned and are no fault.

    Raises:
        DataError: there is no index, or it is not valid; then there is nothing to compare with.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    index = read_index(uri)
    folder = shards_of(uri, index)
    try:
        entries = storage.listing(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); copy the data set again") from None
    work = Work(index, folder, entries, examiner_of(index))
    jobs = [(split, number) for split in index.splits.values() for number in range(len(split.shards))]
    found = _all(jobs, work, workers, out)
    faults = sum(len(one.faults) for one in found)
    place = iter(found)
    for name, split in index.splits.items():
        for line in _count_faults(name, split, [next(place) for _ in split.shards], index):
            out(f"{storage.join(folder_of(uri), INDEX_FILE)}: {line}")
            faults += 1
    _mention_extras(work, out)
    records = f"{sum(one.records for one in found):,} records in {len(jobs):,} shards"
    out(f"{records} verified, no fault" if not faults else f"{records} read, {faults:,} fault{'s' * (faults > 1)}")
    return faults


def _all(jobs: list[tuple[Split, int]], work: Work, workers: int, out: Callable[[str], None]) -> list[Found]:
    """Every shard, in threads; faults are told in the order of the shards, as soon as all before are read."""
    total = sum(split.shards[number].records for split, number in jobs)
    progress, interval = (
        Progress(total, PLAIN_SECONDS, quiet=False),
        LIVE_SECONDS if terminal_columns() else PLAIN_SECONDS,
    )
    began = shown = time.monotonic()
    executor = ThreadPoolExecutor(max(1, workers), "verify")
    futures: list[Future[Found]] = [executor.submit(_shard, split, number, work) for split, number in jobs]
    told = 0
    try:
        while told < len(futures):
            wait(futures[told:], timeout=interval, return_when=FIRST_COMPLETED)
            if any(one.done() and one.exception() for one in futures):
                next(one for one in futures if one.done() and one.exception()).result()
            while told < len(futures) and futures[told].done():
                for line in futures[told].result().faults:
                    progress.end_line()
                    out(line)
                told += 1
            if time.monotonic() - shown >= interval and work.seen:
                shown = time.monotonic()
                seconds = shown - began
                eta = clock(seconds / work.seen * (total - work.seen))
                speed = f"{work.seen / seconds:,.0f} records/s"
                progress.text(f"verifying  {work.seen:,} of {total:,} records  {speed}  ETA {eta}")
    finally:
        work.stopped = True
        executor.shutdown(wait=False, cancel_futures=True)
        progress.end_line()
    return [future.result() for future in futures]


def _shard(split: Split, number: int, work: Work) -> Found:
    """Reads one shard, a block in memory at a time."""
    shard, found = split.shards[number], Found()
    path = storage.join(work.folder, shard.file)
    entry = work.entries.get(shard.file)
    if entry is None:
        work.add(shard.records)
        found.faults.append(f"{path}: missing, the index lists it")
        return found
    if entry.bytes != shard.bytes:
        found.faults.append(f"{path}: has {entry.bytes} bytes, the index says {shard.bytes}")
    wrong: list[tuple[int, int, str]] = []  # records from, to, reason
    checksum = 0
    try:
        for block, (first, data) in enumerate(zip(shard.first_records(), _blocks(path, entry, shard), strict=True)):
            if work.stopped:
                break
            checksum = joined_crc(checksum, storage.crc32c(data), len(data))
            records = _records(_Held(work.folder, split, data), number, block)
            found.records += sum(isinstance(one, bytes) for one in records)
            for record, fault in enumerate(work.examiner.faults(records, found.labels), first):
                if fault:
                    _note(wrong, record, fault)
            work.add(shard.blocks[block].records)
    except OSError as error:
        found.faults.append(f"{path}: cannot be read ({error.strerror})")
    except (ObjectChanged, StorageRefused) as error:
        found.faults.append(str(error))
    found.faults += [f"{path}: {_range(first, last)}: {reason}" for first, last, reason in wrong]
    if not found.faults and not work.stopped and checksum != shard.crc32c:
        found.faults.append(f"{path}: its crc32c is {checksum:08x}, the index says {shard.crc32c:08x}")
    return found


class _Held(Source):
    """One block that has been read already."""

    def __init__(self, folder: storage.Location, split: Split, data: bytes) -> None:
        super().__init__(folder, split)
        self._data = data

    def block(self, shard: int, number: int) -> bytes:
        return self._data


def _records(source: _Held, shard: int, number: int) -> list[bytes | str]:
    """Of each record of a block its data, or what is wrong with it; the checksums of all frames are compared."""
    block, data = source.split.shards[shard].blocks[number], source.block(shard, number)
    if storage.crc32c(data) != block.crc32c:
        return salvage_block(source, shard, number)
    try:
        records = split_records(data)
    except ValueError as error:
        return [f"in its block {error}, though the block is as the index says"] * block.records
    if len(records) != block.records:
        return [f"its block holds {len(records)} records, the index says {block.records}"] * block.records
    return [*records]


def _blocks(path: storage.Location, entry: storage.Entry, shard: Shard) -> Iterator[bytes]:
    """The bytes of each block, fewer where the file ends before."""
    held = bytearray()
    parts = storage.chunks(path, entry)
    for number, block in enumerate(shard.blocks):
        while len(held) < block.bytes and (part := next(parts, None)):
            held += part
        data = bytes(held[: block.bytes])
        del held[: block.bytes]
        for _ in range(REREADS if storage.is_cloud(path) else 0):
            if storage.crc32c(data) == block.crc32c:
                break
            data = storage.read_range(path, shard.offset(number), block.bytes, entry=entry)  # perhaps only the network
        yield data


def _note(wrong: list[tuple[int, int, str]], record: int, reason: str) -> None:
    """Adds a fault, to the one before where it goes on."""
    if wrong and wrong[-1][1:] == (record - 1, reason):
        wrong[-1] = (wrong[-1][0], record, reason)
    else:
        wrong.append((record, record, reason))


def _range(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _count_faults(name: str, split: Split, found: list[Found], index: Index) -> Iterator[str]:
    """Classes that have other counts than the index says, where all labels of the split could be read."""
    labels = sum((one.labels for one in found), Counter[int]())
    if labels.total() != split.records:
        return
    for number, stated in enumerate(split.class_records):
        if labels[number] != stated:
            yield f"split {name}: class {index.classes[number]} has {labels[number]} records, the index says {stated}"


def _mention_extras(work: Work, out: Callable[[str], None]) -> None:
    known = {shard.file for split in work.index.splits.values() for shard in split.shards} | {INDEX_FILE}
    extras = sorted(set(work.entries) - known)
    if extras:
        more = f" and {len(extras) - NAMED_EXTRAS} more" if len(extras) > NAMED_EXTRAS else ""
        out(f"not named by the index, no fault: {', '.join(extras[:NAMED_EXTRAS])}{more}")
