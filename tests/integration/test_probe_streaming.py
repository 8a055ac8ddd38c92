"""The simulated bucket against a real server, and the measure over it against what can be reckoned."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Bucket
from trainer import storage
from trainer.errors import ObjectChanged, StorageRefused
from trainer.probe import object_server

FILES = {"set/a.bin": bytes(range(256)) * 1000, "set/deep/b c.bin": b"0123456789", "other": b"x"}


def seen(folder: str) -> list[Any]:
    """What the package reads of a bucket, however it may be read."""
    entries = storage.listing(folder)
    told = [{name: (entry.bytes, entry.crc32c) for name, entry in entries.items()}]
    for name, entry in sorted(entries.items()):
        place = f"{folder}/{name}"
        now = storage.stat(place)
        assert now is not None
        told += [now[:2], storage.read_bytes(place), storage.read_range(place, 3, 5)]
        told.append(storage.read_range(place, entry.bytes - 2, 100, entry=entry))
    told.append(storage.stat(f"{folder}/absent"))
    return told


def test_the_simulated_bucket_reads_as_a_real_one(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
        storage.create(f"gs://{bucket.name}/{name}", data)
    wanted = seen(f"gs://{bucket.name}/set")
    with object_server.serving(tmp_path, float("inf"), 0) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        assert seen("gs://simulated/set") == wanted
        place = "gs://simulated/set/a.bin"
        entry = storage.stat(place)
        assert entry is not None
        with pytest.raises(ObjectChanged):
            storage.read_range(place, 0, 5, entry=entry._replace(generation=entry.generation + 1))
        with pytest.raises(StorageRefused):
            storage.read_bytes("gs://simulated/set/absent")
        before = server.sent()
        storage.read_range(place, 0, 1000)
        assert server.sent() - before == 1000


def test_a_request_takes_the_latency_of_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with object_server.serving(tmp_path, float("inf"), 300) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        began = time.monotonic()
        storage.listing("gs://simulated")
        assert time.monotonic() - began >= 0.3


IMAGES, MBIT = 256, 20
FIELDS = {
    "model.image_size": "32",
    "model.classes": "10",
    "train.global_batch_size": "32",
    "data.test_split": "test",
    "data.shuffle_window": "32",
}


def measured(folder: Path, fields: dict[str, str], settings: dict[str, str]) -> Any:
    folder.mkdir()
    common = {"images": str(IMAGES), "shards": "8", "rounds": "1", "mbit": str(MBIT), "latency_ms": "5"}
    spec = {"recipe": "imagenet", "fields": {**FIELDS, **fields}, "settings": {**common, **settings}}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "trainer.probe.streaming", str(folder / "spec.json"), str(folder / "answer.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())


def test_a_slow_link_is_the_limit_and_a_cache_spares_the_second_epoch(tmp_path: Path) -> None:
    with_cache = measured(tmp_path / "cached", {}, {})
    assert with_cache["outcome"] == "ok", with_cache
    numbers = with_cache["numbers"]
    split = json.loads((tmp_path / "cached" / "shards" / "index.json").read_text())["splits"]["train"]["shards"]
    size = sum(shard["bytes"] for shard in split)
    assert numbers["cache_bytes"] == size
    assert numbers["cache_hits"] == 1.0  # every byte crossed exactly once
    fastest = MBIT * 1e6 / 8 / (size / IMAGES)
    assert 0 < numbers["images_per_second"] <= 1.01 * fastest  # 1 %: the credit of the link over an epoch of seconds
    assert numbers["link_share"] == pytest.approx(numbers["images_per_second"] / fastest, rel=1e-4)  # rounded
    assert numbers["ratio"] < 1
    shares = [numbers[f"wait_{stage}"] for stage in ("reading", "decoding", "augmenting")]
    assert all(0 <= share < 1 for share in shares)  # the first batch apart, which waits for most of so short an epoch

    without = measured(tmp_path / "uncached", {"storage.cache_bytes": "0"}, {})
    assert without["outcome"] == "ok", without
    assert without["numbers"]["cache_hits"] == 0.0
    assert without["numbers"]["cache_bytes"] == 0


@pytest.mark.parametrize(
    ("fields", "settings", "words"),
    [
        ({}, {"latency": "5"}, "probe.latency: no such setting; there are images, "),
        ({}, {"images": "16"}, "not enough for one train.global_batch_size of 32"),
        ({"data.lanes": "16"}, {}, "fewer than data.lanes 16"),
    ],
)
def test_a_cell_that_cannot_be_measured_says_why(
    tmp_path: Path, fields: dict[str, str], settings: dict[str, str], words: str
) -> None:
    found = measured(tmp_path / "cell", fields, settings)
    assert found["outcome"] == "error"
    assert words in found["why"]
