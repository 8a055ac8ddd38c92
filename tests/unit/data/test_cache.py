"""The cache of pieces, with real processes that share it and are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from trainer.data.cache import Got, PieceCache
from trainer.data.pieces import NEVER
from trainer.errors import ConfigError

SIZE = 1000
SPAWN = multiprocessing.get_context("spawn")


def content(key: str) -> bytes:
    return (key.encode() * SIZE)[:SIZE]


def fetched(cache: PieceCache, key: str, use: float = 0, mine: float = -1) -> Got:
    return cache.fetch(key, SIZE, lambda: [content(key)], lambda _: use, mine)


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_was_fetched_is_read(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "cache", 10 * SIZE)
    assert cache.read("a", 0, 10) is None
    assert fetched(cache, "a") is Got.READY
    assert cache.read("a", 3, 20) == content("a")[3:23]
    assert cache.fetch("a", SIZE, lambda: pytest.fail("fetched again"), lambda _: 0, 0) is Got.READY
    cache.forget("a")
    assert cache.read("a", 0, 10) is None


def test_what_is_needed_last_goes_first(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 3 * SIZE)
    uses = {"a": 5.0, "b": NEVER, "c": 7.0, "d": 6.0}

    def fetch(key: str) -> Got:
        return cache.fetch(key, SIZE, lambda: [content(key)], uses.__getitem__, uses[key])

    def names() -> set[str]:
        return {path.stem for path in tmp_path.glob("*.piece")}

    assert [fetch(key) for key in "abcd"] == [Got.READY] * 4
    assert names() == {"a", "c", "d"}
    uses["e"] = 8.0
    assert fetch("e") is Got.FULL  # all that is there is needed sooner
    assert names() == {"a", "c", "d"}
    uses["e"] = 5.5
    assert fetch("e") is Got.READY
    assert names() == {"a", "d", "e"}


def test_nothing_is_dropped_for_what_does_not_fit_anyway(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 3 * SIZE)
    for key in "abc":
        fetched(cache, key)
    assert cache.fetch("big", 4 * SIZE, list, lambda _: NEVER, 0) is Got.FULL
    assert len(list(tmp_path.glob("*.piece"))) == 3


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 10 * SIZE)

    def fail() -> list[bytes]:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        cache.fetch("a", SIZE, fail, lambda _: 0, 0)
    assert held(tmp_path) == 0
    assert fetched(cache, "a") is Got.READY


def test_two_threads_fetch_once(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 10 * SIZE)
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> list[bytes]:
        inside.set()
        go_on.wait()
        return [content("a")]

    thread = threading.Thread(target=lambda: cache.fetch("a", SIZE, slow, lambda _: 0, 0))
    thread.start()
    inside.wait()
    assert held(tmp_path) == SIZE  # spoken for, before a byte has come
    assert fetched(cache, "a") is Got.BUSY
    go_on.set()
    cache.wait("a")
    thread.join()
    assert cache.read("a", 0, SIZE) == content("a")


def _hang(folder: Path, key: str) -> None:
    PieceCache(folder, 3 * SIZE).fetch(key, SIZE, lambda: time.sleep(1000) or [], lambda _: 0, 0)


def test_a_killed_fetch_is_swept_up(tmp_path: Path) -> None:
    process = SPAWN.Process(target=_hang, args=(tmp_path, "a"))
    process.start()
    while not (tmp_path / "a.part").exists():
        time.sleep(0.01)
    cache = PieceCache(tmp_path, SIZE)
    while fetched(cache, "a") is not Got.BUSY:  # between making the file and locking it
        time.sleep(0.01)
    assert fetched(cache, "b") is Got.FULL
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert fetched(cache, "b", mine=NEVER) is Got.READY
    assert not list(tmp_path.glob("*.part"))


def _use(folder: Path, seed: int, log: Path, rounds: int) -> None:
    cache, choose = PieceCache(folder, 10 * SIZE), random.Random(seed)
    for _ in range(rounds):
        key = f"k{choose.randrange(30)}"
        got = cache.fetch(key, SIZE, lambda key=key: [content(key)], lambda _: choose.random(), 0.0)  # type: ignore[misc]
        assert got in (Got.READY, Got.BUSY, Got.FULL)
        data = cache.read(key, 0, SIZE)
        assert data in (None, content(key))
        if _held_now(folder) > 10 * SIZE:
            log.write_text("over the bound")


def _held_now(folder: Path) -> int:
    """While nobody gives out space or renames."""
    with PieceCache(folder, 0)._locked():
        return held(folder)


def test_many_processes_some_killed_stay_within_the_bound(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    PieceCache(folder, SIZE)
    choose = random.Random(0)
    for turn in range(3):
        processes = [SPAWN.Process(target=_use, args=(folder, 10 * turn + n, log, 10**6)) for n in range(2)]
        for process in processes:
            process.start()
        time.sleep(1 + choose.random())
        for process in processes:
            assert process.is_alive()
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        assert held(folder) <= 10 * SIZE
    assert not log.exists()
    last = SPAWN.Process(target=_use, args=(folder, 99, log, 200))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert not log.exists()
    for path in folder.glob("*.piece"):
        assert path.read_bytes() == content(path.stem)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"storage\.cache_dir"):
        PieceCache(tmp_path / "file" / "cache", 1)
