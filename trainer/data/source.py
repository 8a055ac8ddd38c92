"""Where the bytes of blocks come from: a local folder, or a bucket through the cache of pieces.

Every byte that leaves here has been compared with the checksums of the index. Knows nothing of TensorFlow.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from trainer import storage
from trainer.config import RunConfig, StorageConfig
from trainer.data.cache import Got, PieceCache
from trainer.data.index import Index, Split, listed_shards, shards_of
from trainer.data.pieces import NEVER, Piece, Pieces, Planned
from trainer.errors import CapsnetError, DataError

log = logging.getLogger("capsnet")

ATTEMPTS = 4
"""Reads of bytes that do not have the checksum of the index, before it is not the network's fault."""
PATIENCE_SECONDS = 0.2


class Source:
    """Blocks of a split in a local folder. ``now`` is the step that is being served, for those who plan ahead."""

    now = 0
    parallel = 1
    """Reads that are worth making at a time."""

    def __init__(self, folder: storage.Location, split: Split) -> None:
        self.folder, self.split = folder, split

    def path(self, shard: int) -> storage.Location:
        return storage.join(self.folder, self.split.shards[shard].file)

    def block(self, shard: int, number: int) -> bytes:
        """The bytes of a block as they are, to be checked by the reader. Raises OSError, CapsnetError."""
        entry = self.split.shards[shard]
        return storage.read_range(self.path(shard), entry.offset(number), entry.blocks[number].bytes)

    def close(self) -> None:
        """Ends what runs in the background."""


@dataclass
class Traffic:
    """Bytes by where they came from."""

    fetched: int = 0
    cached: int = 0
    direct: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, size: int) -> None:
        with self.lock:
            setattr(self, kind, getattr(self, kind) + size)


class BucketSource(Source):
    """Blocks of a split in a bucket. Threads fill the cache in the order of the plan; what is not there in time, or
    finds no room, is fetched when it is asked for."""

    def __init__(
        self,
        folder: storage.Location,
        split: Split,
        entries: dict[str, storage.Entry],
        policy: StorageConfig,
        pieces: Pieces,
        plan: Iterator[Planned],
        next_use: Callable[[str, int], float],
    ) -> None:
        super().__init__(folder, split)
        self.traffic = Traffic()
        self.parallel = policy.connections
        self._entries, self._policy, self._pieces, self._plan = entries, policy, pieces, plan
        self._next_use = next_use
        self._cache = PieceCache(storage.cache_folder(policy), policy.cache_bytes) if policy.cache_bytes else None
        self._closed = threading.Event()
        self._plan_lock, self._room = threading.Lock(), threading.Lock()
        self._cache_failed = False
        self._threads = [
            threading.Thread(target=self._fill_ahead, name=f"fetch-{number}", daemon=True)
            for number in range(policy.connections if self._cache else 0)
        ]
        for thread in self._threads:
            thread.start()

    def block(self, shard: int, number: int) -> bytes:
        entry = self.split.shards[shard]
        offset, block = entry.offset(number), entry.blocks[number]
        piece = self._pieces.holding(shard, number)
        for _ in range(ATTEMPTS if self._cache else 0):
            data = self._from_cache(piece, offset - piece.offset, block.bytes)
            if data is None:
                break
            if storage.crc32c(data) == block.crc32c:
                self.traffic.add("cached", len(data))
                return data
            log.warning("%s: a damaged copy in %s is fetched again", self.path(shard), self._the_cache.folder)
            self._the_cache.forget(self._pieces.key(piece))
        data = self._direct(Piece(shard, number, number + 1, offset, block.bytes))
        self.traffic.add("direct", len(data))
        return data

    def close(self) -> None:
        self._closed.set()

    @property
    def _the_cache(self) -> PieceCache:
        assert self._cache is not None
        return self._cache

    def _from_cache(self, piece: Piece, offset: int, length: int) -> bytes | None:
        """Bytes of a piece, fetched if it is not there; None where there is no room for it, or its disk has failed."""
        key = self._pieces.key(piece)
        try:
            while (data := self._the_cache.read(key, offset, length)) is None:
                got = self._fetch(piece, self.now)
                if got is Got.FULL:
                    return None
                if got is Got.BUSY:
                    self._the_cache.wait(key)
        except OSError as error:
            if not self._cache_failed:
                log.warning("cache %s: %s; done without where that is so", self._the_cache.folder, error.strerror)
            self._cache_failed = True
            return None
        return data

    def _fetch(self, piece: Piece, step: float) -> Got:
        def fill() -> Iterator[bytes]:
            yield from self._verified(piece)
            self.traffic.add("fetched", piece.bytes)

        def next_use(key: str) -> float:
            return self._next_use(key, self.now)

        for _ in range(ATTEMPTS - 1):
            with suppress(_DamagedError):
                return self._the_cache.fetch(self._pieces.key(piece), piece.bytes, fill, next_use, step)
        return self._the_cache.fetch(self._pieces.key(piece), piece.bytes, fill, next_use, step)

    def _fill_ahead(self) -> None:
        """One thread: the next of the plan, again and again. What fails here will fail where it is needed."""
        while not self._closed.is_set():
            with self._plan_lock:
                planned = next(self._plan, None)
            if planned is None:
                return
            try:
                if planned.step >= self.now and self._fetch(planned.piece, planned.step) is Got.FULL:
                    self._fetch_when_there_is_room(planned)
            except (CapsnetError, OSError) as error:
                log.info("fetching ahead: %s", error)

    def _fetch_when_there_is_room(self, planned: Planned) -> None:
        """One thread at a time, and once a step, after which a piece may have had its use: to look for room takes a
        look at every piece of the cache, under its lock."""
        with self._room:
            looked_at = None
            while not self._closed.is_set() and planned.step >= self.now:
                if self.now != looked_at:
                    looked_at = self.now
                    if self._fetch(planned.piece, planned.step) is not Got.FULL:
                        return
                self._closed.wait(PATIENCE_SECONDS)

    def _direct(self, piece: Piece) -> bytes:
        for _ in range(ATTEMPTS - 1):
            with suppress(_DamagedError):
                return b"".join(self._verified(piece))
        return b"".join(self._verified(piece))

    def _verified(self, piece: Piece) -> Iterator[bytes]:
        """The bytes of a piece from the bucket, each block compared as it ends. Raises _DamagedError."""
        shard, path = self.split.shards[piece.shard], self.path(piece.shard)
        parts = storage.chunks(path, self._entries[shard.file], piece.offset, piece.bytes, self._policy)
        number, checksum, left = piece.first, storage.Checksum(), shard.blocks[piece.first].bytes
        for part in parts:
            at = 0
            while at < len(part):
                of_block = part[at : at + left]  # no copy where the part lies within the block
                checksum.update(of_block)
                at, left = at + len(of_block), left - len(of_block)
                if left:
                    continue
                if checksum.value != shard.blocks[number].crc32c:
                    log.warning("%s: block %d came damaged", path, number)
                    raise _DamagedError(
                        f"{path}: records from {shard.first_records()[number]} on: what comes does not have the "
                        f"checksum of the index, {ATTEMPTS} times; copy or prepare the data set again"
                    )
                number += 1
                if number < piece.stop:
                    checksum, left = storage.Checksum(), shard.blocks[number].bytes
            yield part


class _DamagedError(DataError):
    """Bytes that are not those of the index; they may have been damaged on the way."""


def open_source(
    config: RunConfig,
    index: Index,
    split: Split,
    make_plan: Callable[[Pieces], Iterator[Planned]],
    next_use: Callable[[Pieces], Callable[[str, int], float]] | None = None,
) -> Source:
    """The blocks of a split of the data set that the configuration names.

    Args:
        make_plan: what will be needed, in the order of need.
        next_use: when a piece is needed again; without it nothing is dropped from the cache for this source.

    Raises:
        DataError, StorageError, StorageRefused: as ``load_index``.
        ConfigError: the cache cannot be used.
    """
    folder = shards_of(config.data.uri, index)
    if not storage.is_cloud(folder):
        return Source(folder, split)
    pieces = Pieces(split)
    entries = listed_shards(config.data.uri, index, config.storage)
    keep = next_use(pieces) if next_use else lambda key, now: -NEVER
    return BucketSource(folder, split, entries, config.storage, pieces, make_plan(pieces), keep)
