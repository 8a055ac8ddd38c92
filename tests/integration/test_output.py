"""What of a run is kept in a bucket, piece by piece: checkpoints, and files that grow."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from tests.integration.harness import PATIENCE
from trainer import checkpoint
from trainer.errors import ObjectChanged, StorageError
from trainer.output import copies, newest, streams


def test_a_large_file_of_a_checkpoint_goes_in_pieces_and_comes_back_whole(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PIECE_BYTES", 1000)
    path = tmp_path / "step-00000007"
    path.mkdir()
    sizes = {checkpoint.TENSORS: 12_345, checkpoint.MANIFEST: 1000, checkpoint.STATE: 1001, checkpoint.CONFIG: 3}
    content = {name: os.urandom(size) for name, size in sizes.items()}
    for name, data in content.items():
        (path / name).write_bytes(data)
    bucket.proxy.faults.append(Fault("status", 503, every=5, times=3))
    copies.store(bucket.uri, "checkpoints/a", path)
    assert len(bucket.names()) == 13 + 1 + 2 + 1
    stored = newest.Stored(7, "checkpoints/a")
    back = copies.fetch(bucket.uri, stored, tmp_path / "back", whole=True)
    assert {file.name: file.read_bytes() for file in back.iterdir()} == content
    light = copies.fetch(bucket.uri, stored, tmp_path / "light", whole=False)
    assert {file.name for file in light.iterdir()} == content.keys() - {checkpoint.TENSORS}
    copies.remove(bucket.uri, "checkpoints/a")
    assert not bucket.names()


def test_what_earlier_attempts_left_of_checkpoints_is_removed(bucket: Bucket) -> None:
    named = "checkpoints/000002-000001"
    left = ["checkpoints/000001-000007/state.json", "checkpoints/000002-000002/tensors.safetensors/000000"]
    kept = [f"{named}/state.json", "checkpoints/000003-000001/state.json", "checkpoints.json", "streams/000001/begun"]
    for name in (*left, *kept):
        bucket.put(name, b"1")
    copies.forget_unnamed(bucket.uri, [newest.Stored(7, named)], before=3)
    assert sorted(bucket.names()) == sorted(kept)


def test_streams_that_an_attempt_still_writes_are_fetched_as_they_are_then(bucket: Bucket, tmp_path: Path) -> None:
    """As by ranks that a cluster took for dead, until they notice."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("one\n")
    streams.Streams(bucket.uri, 1, tmp_path / "run", print).begin()

    def written() -> None:
        bucket.put("streams/000001/metrics.jsonl/000000", b"one\ntwo\n")

    bucket.proxy.faults.append(Fault("act", action=written))
    streams.fetch(bucket.uri, tmp_path / "back")
    assert (tmp_path / "back" / "metrics.jsonl").read_text() == "one\ntwo\n"
    bucket.proxy.faults.append(Fault("act", times=10**6, action=written))
    with pytest.raises(StorageError, match="change while they are fetched; an attempt still writes them"):
        streams.fetch(bucket.uri, tmp_path / "again")


def test_streams_follow_on_after_any_failure(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAUSE_SECONDS", 0.05)
    said: list[str] = []
    following = streams.Streams(bucket.uri, 1, tmp_path, said.append)
    following.begin()
    failures = [ObjectChanged("changed"), FileNotFoundError("gone")]
    send = following.send
    monkeypatch.setattr(following, "send", lambda: send() if not failures else _raise(failures.pop(0)))
    following.follow()
    (tmp_path / "metrics.jsonl").write_text("one\n")
    deadline = time.monotonic() + PATIENCE
    while "streams/000001/metrics.jsonl/000000" not in bucket.names():
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    following.close()
    assert said == ["changed; metrics and events follow when it answers again"]


def _raise(error: Exception) -> None:
    raise error
