"""Faults of Cloud Storage beyond those of test_storage.py: chunks, replacing, lost answers, credentials."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from tests.integration.test_storage import QUICK
from trainer import storage
from trainer.errors import ObjectChanged, StorageError
from trainer.storage.cloud import RESUMABLE_BYTES

DATA = os.urandom(3_000_001)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (5, None), (7, 1_500_000), (3_000_000, 9), (0, 0), (10**7, 1)]
)
@pytest.mark.parametrize("kind", ["cut", "reset", "refuse"])
def test_chunks_are_a_slice(bucket: Bucket, tmp_path: Path, kind: str, offset: int, length: int | None) -> None:
    bucket.put("a", DATA)
    (tmp_path / "a").write_bytes(DATA)
    bucket.proxy.faults.append(Fault(kind))
    wanted = DATA[offset : None if length is None else offset + length]
    for folder in (bucket.uri, tmp_path):
        entry = storage.listing(folder, QUICK)["a"]
        assert b"".join(storage.chunks(storage.join(folder, "a"), entry, offset, length, QUICK)) == wanted


def test_chunks_of_a_whole_object_say_that_they_were_damaged(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    entry = storage.listing(bucket.uri, QUICK)["a"]
    bucket.proxy.faults.append(Fault("flip"))
    with pytest.raises(StorageError, match="checksum"):
        list(storage.chunks(f"{bucket.uri}/a", entry, policy=QUICK))


@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_an_object_is_replaced_though_answers_are_lost(bucket: Bucket, size: int) -> None:
    data = os.urandom(size)
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("reset", where="^(POST|PUT) ", times=2, every=2))
    bucket.proxy.faults.append(Fault("reset", where="^(POST|PUT) ", times=1))
    storage.atomic_write(f"{bucket.uri}/a", data, QUICK)
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == data


@pytest.mark.parametrize("late", [b"new", b"other"])
def test_an_earlier_attempt_that_arrives_late_is_told_from_somebody_else(bucket: Bucket, late: bytes) -> None:
    """After this attempt has looked, and before it has sent: the server refuses it."""
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("act", where="^POST ", action=lambda: bucket.put("a", late)))
    if late == b"new":
        assert storage.atomic_write(f"{bucket.uri}/a", b"new", QUICK) is None
    else:
        with pytest.raises(ObjectChanged, match=f"{bucket.uri}/a: written by somebody else"):
            storage.atomic_write(f"{bucket.uri}/a", b"new", QUICK)
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == late


def test_an_object_that_vanishes_while_it_is_replaced_is_written(bucket: Bucket) -> None:
    bucket.put("a", DATA)

    def vanish() -> None:
        storage.delete(f"{bucket.uri}/a", QUICK)
        raise ConnectionError  # and the connection ends without an answer

    bucket.proxy.faults.append(Fault("act", where="^POST ", action=vanish))
    storage.atomic_write(f"{bucket.uri}/a", b"new", QUICK)
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == b"new"


def test_credentials_that_were_asked_for_are_not_done_without(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "STORAGE_EMULATOR_HOST"}
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "none.json")
    program = "from trainer import storage\nstorage.listing('gs://b/a')"
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "StorageRefused: GOOGLE_APPLICATION_CREDENTIALS=" in ended.stderr


def test_a_large_upload_goes_on_where_it_was(bucket: Bucket) -> None:
    data = os.urandom(5 * RESUMABLE_BYTES)
    bucket.proxy.faults.append(Fault("refuse", where="^PUT ", every=3, times=2))
    bucket.proxy.faults.append(Fault("status", 503, where="^PUT ", every=4, times=1))
    storage.create(f"{bucket.uri}/a", data, QUICK)
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == data
    parts = [line for line in bucket.proxy.log if line.startswith("PUT ")]
    assert sum(fault.done for fault in bucket.proxy.faults) == 3
    assert len(parts) == 5 + 3


@pytest.mark.parametrize("size", [100_000, 20_000_000])
def test_an_upload_that_is_damaged_on_the_way_is_made_again(bucket: Bucket, size: int) -> None:
    data = os.urandom(size)
    fault = Fault("spoil", where="^PUT " if size > RESUMABLE_BYTES else "^POST ")
    bucket.proxy.faults.append(fault)
    storage.create(f"{bucket.uri}/a", data, QUICK)
    assert fault.done == 1
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == data
