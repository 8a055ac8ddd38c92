"""Training from a bucket that fails is training from disk: the same losses, the same bytes, nothing fetched twice."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.gcs.proxy import Fault
from tests.integration import harness
from tests.integration.conftest import Bucket
from tests.unit.data.prepare import sources
from trainer import configs
from trainer.config import RunConfig, with_overrides
from trainer.data import index as data_index
from trainer.data import pieces
from trainer.data.cache import Got, PieceCache
from trainer.data.index import folder_of, load_index
from trainer.data.pipeline import test_batches as batches_of_tests
from trainer.data.pipeline import train_batches
from trainer.errors import DataError, ObjectChanged

PATIENT = {
    "storage.deadline_seconds": "60",
    "storage.first_wait_seconds": "0.01",
    "storage.longest_wait_seconds": "0.1",
    "storage.stall_seconds": "1",
}
TRAIN_BYTES = sum(shard.bytes for shard in load_index("embedded").splits["train"].shards)


@pytest.fixture
def embedded(bucket: Bucket) -> str:
    return bucket.put_folder(Path(folder_of("embedded")), "set")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a size that makes many of the small embedded set."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 40_000)


def every_fault() -> list[Fault]:
    return [
        *(Fault("status", status, every=7, times=3) for status in (429, 500, 503)),
        *(Fault(kind, every=5, times=4) for kind in ("refuse", "reset", "cut", "flip")),
        Fault("stall", 2, every=9, times=2),
        Fault("slow", 2, every=11, times=2),
    ]


def config_of(uri: str, cache: Path, **overrides: object) -> RunConfig:
    fields = {"data.uri": uri, "storage.cache_dir": str(cache), **PATIENT}
    return with_overrides(configs.load("quick"), {**fields, **{k.replace("__", "."): v for k, v in overrides.items()}})


def images(config: RunConfig, start: int, steps: int, rank: int = 0, size: int = 1) -> list[np.ndarray]:
    index = load_index(config.data.uri, config.storage)
    with train_batches(config, index, rank, size, start, steps) as batches:
        return [np.asarray(batch["image"]) for batch in batches]


@pytest.mark.parametrize("cache_bytes", ["0", "100kB", "1MB", "1GB"])
def test_what_training_receives_is_the_original(
    bucket: Bucket, embedded: str, tmp_path: Path, small_pieces: None, cache_bytes: str
) -> None:
    local = images(config_of("embedded", tmp_path), 0, 100)
    bucket.proxy.faults.extend(every_fault())
    streamed = images(config_of(embedded, tmp_path / "cache", storage__cache_bytes=cache_bytes), 0, 100)
    assert all((one == other).all() for one, other in zip(local, streamed, strict=True))
    assert sum(fault.done for fault in bucket.proxy.faults) > 10


def test_a_set_smaller_than_the_bound_is_fetched_once(bucket: Bucket, embedded: str, tmp_path: Path) -> None:
    config = config_of(embedded, tmp_path / "cache")
    steps = data_index.steps_per_epoch(load_index("embedded").splits["train"], 8, 128)
    images(config, 0, 2 * steps)
    images(config, 5, 20)
    fetched = sum(size for name, size in bucket.proxy.bytes.items() if "train" in name)
    assert fetched == TRAIN_BYTES


def held(cache: Path) -> int:
    """Bytes of the files in a folder from which others remove some meanwhile."""
    total = 0
    for path in cache.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_the_bound_is_never_exceeded(bucket: Bucket, embedded: str, tmp_path: Path, small_pieces: None) -> None:
    config = config_of(embedded, tmp_path / "cache", storage__cache_bytes="400kB")
    index = load_index(embedded, config.storage)
    most = 0
    with train_batches(config, index, 0, 1, 0, 150) as batches:
        for _ in batches:
            most = max(most, held(tmp_path / "cache"))
    assert 200_000 < most <= 400_000


def test_a_damaged_copy_in_the_cache_is_fetched_again(bucket: Bucket, embedded: str, tmp_path: Path) -> None:
    config = config_of(embedded, tmp_path / "cache")
    before = images(config, 0, 20)
    for path in (tmp_path / "cache").glob("*.piece"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert all((one == other).all() for one, other in zip(before, images(config, 0, 20), strict=True))


def test_a_cache_whose_disk_fails_is_done_without(
    bucket: Bucket, embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def over_quota(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "posix_fallocate", over_quota)
    local = images(config_of("embedded", tmp_path), 0, 20)
    with caplog.at_level(logging.WARNING, "capsnet"):
        streamed = images(config_of(embedded, tmp_path / "cache"), 0, 20)
    assert all((one == other).all() for one, other in zip(local, streamed, strict=True))
    assert [record.getMessage() for record in caplog.records] == [
        f"cache {tmp_path / 'cache'}: Disk quota exceeded; done without where that is so"
    ]


def test_room_in_the_cache_is_looked_for_when_a_step_was_made(
    bucket: Bucket, embedded: str, tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look goes over every piece of the cache, and thousands of them would keep a core busy."""
    found: list[Got] = []
    fetch = PieceCache.fetch

    def counted(*arguments: object) -> Got:
        found.append(fetch(*arguments))
        return found[-1]

    monkeypatch.setattr(PieceCache, "fetch", counted)
    config = config_of(embedded, tmp_path / "cache", storage__cache_bytes="400kB")
    with train_batches(config, load_index(embedded, config.storage), 0, 1, 0, 150) as batches:
        next(batches)
        time.sleep(2)  # what can be read ahead has been
        looks = found.count(Got.FULL)
        assert looks
        time.sleep(1)  # five times as long as a look is apart
        assert found.count(Got.FULL) == looks
        next(batches)


def test_a_resume_reads_no_more_than_it_needs(
    bucket: Bucket, embedded: str, tmp_path: Path, small_pieces: None
) -> None:
    images(config_of(embedded, tmp_path / "cache", data__shuffle_window=128), 70, 4)
    fetched = sum(size for name, size in bucket.proxy.bytes.items() if "train" in name)
    assert 0 < fetched < TRAIN_BYTES / 2


def test_a_replaced_shard_is_named(bucket: Bucket, embedded: str, tmp_path: Path) -> None:
    shard = load_index("embedded").splits["train"].shards[0].file
    config = config_of(embedded, tmp_path / "cache", storage__cache_bytes="0")
    index = load_index(embedded, config.storage)
    bucket.proxy.faults.append(
        Fault("act", where=f"alt=media.*|{shard}", action=lambda: bucket.put(f"set/{shard}", os.urandom(1000)))
    )
    with pytest.raises(ObjectChanged, match=shard), train_batches(config, index, 0, 1, 0, 78) as batches:
        list(batches)
    with pytest.raises(DataError, match=f"{shard}: has 1000 bytes"):
        load_index(embedded, config.storage)
    bucket.proxy.faults.append(Fault("empty", where=r"GET .*/o\?"))
    with pytest.raises(DataError, match="holds no files; put a data set there"):
        load_index(embedded, config.storage)


def test_the_test_split_comes_whole(bucket: Bucket, embedded: str, tmp_path: Path) -> None:
    bucket.proxy.faults.extend(every_fault())
    config = config_of(embedded, tmp_path / "cache")
    here = config_of("embedded", tmp_path)
    for rank in range(2):
        streamed = list(batches_of_tests(config, load_index(embedded, config.storage), rank, 2))
        local = list(batches_of_tests(here, load_index("embedded"), rank, 2))
        for one, other in zip(streamed, local, strict=True):
            assert all((np.asarray(one[key]) == np.asarray(other[key])).all() for key in one)


def test_the_loss_curve_of_two_ranks_is_that_from_disk(bucket: Bucket, embedded: str, tmp_path: Path) -> None:
    exact = {**harness.SMALL, "train.precision": "float64"}  # which hides the order in which ranks add up
    harness.train(tmp_path / "here", ranks=2, fields=exact)
    bucket.proxy.faults.extend(every_fault())
    place = {"data.uri": embedded, "storage.cache_dir": str(tmp_path / "cache")}
    output = harness.train(tmp_path / "there", ranks=2, fields={**exact, **PATIENT, **place})
    assert "input: " in output
    assert len(harness.losses(tmp_path / "here")) == harness.STEPS
    assert harness.losses(tmp_path / "there") == harness.losses(tmp_path / "here")
    assert sum(fault.done for fault in bucket.proxy.faults) > 5


@pytest.fixture(scope="module")
def colour_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources.colours(tmp_path_factory.mktemp("colour") / "images.zip", train=64, test=8)


def test_the_cifar_recipe_from_images_to_a_trained_network(bucket: Bucket, colour_images: Path, tmp_path: Path) -> None:
    """Prepared into a bucket that fails, streamed from it while it fails: as from disk, to the last bit."""
    prepare = [sys.executable, "-m", "trainer", "data", "prepare", str(colour_images), "--shards", "train=8,test=2"]
    subprocess.run([*prepare, str(tmp_path / "shards")], check=True)
    bucket.proxy.faults.extend(Fault(kind, 503, where="^POST", every=5, times=2) for kind in ("status", "refuse"))
    subprocess.run([*prepare, f"{bucket.uri}/shards"], check=True)
    assert sum(fault.done for fault in bucket.proxy.faults) == 4

    fields = {**harness.SMALL, "train.global_batch_size": "32"}
    recipe = "sabour2017_cifar10"
    harness.train(tmp_path / "here", fields={**fields, "data.uri": str(tmp_path / "shards")}, recipe=recipe)
    bucket.proxy.faults[:] = every_fault()
    place = {"data.uri": f"{bucket.uri}/shards", "storage.cache_dir": str(tmp_path / "cache")}
    harness.train(tmp_path / "there", fields={**fields, **PATIENT, **place}, recipe=recipe)
    assert len(harness.losses(tmp_path / "here")) == 10
    assert harness.losses(tmp_path / "there") == harness.losses(tmp_path / "here")
    assert sum(fault.done for fault in bucket.proxy.faults) > 5
