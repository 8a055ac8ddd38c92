from __future__ import annotations

import resource
from pathlib import Path

import pytest

from trainer.errors import CapsnetError
from trainer.storage import atomic_write, crc32c, listing, local_place, place, read_bytes, read_range


def test_crc32c_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its definition


def test_atomic_write_replaces_and_leaves_only_the_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    atomic_write(tmp_path / "a", b"new")
    assert read_bytes(tmp_path / "a") == b"new"
    assert {name: entry.bytes for name, entry in listing(tmp_path).items()} == {"a": 3}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            atomic_write(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_bytes(tmp_path / "a") == b"old"
    assert {name: entry.bytes for name, entry in listing(tmp_path).items()} == {"a": 3}


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "a", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (8, 5), (10, 1), (50, 3), (4, 0)])
def test_read_range_is_a_slice(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_range(tmp_path / "a", offset, length) == b"0123456789"[offset : offset + length]


def test_places_as_they_are_typed() -> None:
    assert place("gs://bucket/runs/a/") == "gs://bucket/runs/a"
    assert place("runs/a") == local_place("runs/a") == Path("runs/a")


@pytest.mark.parametrize("text", ["gs://", "gs:///runs", "gs://_no/runs", "s3://bucket/runs"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(CapsnetError, match="gs://BUCKET/") as caught:
        place(text)
    assert caught.value.exit_code == 2


def test_a_bucket_is_no_place_on_this_machine() -> None:
    with pytest.raises(CapsnetError, match="a place on this machine"):
        local_place("gs://bucket/runs")
