"""Cloud Storage that fails, as clouds do: what arrives is what was stored, or the error says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from trainer import storage
from trainer.config import StorageConfig
from trainer.errors import CapsnetError, ObjectChanged, StorageError, StorageRefused

# Requests are counted, and a busy machine is not to look like a connection that stalls, except where one does.
QUICK = StorageConfig(deadline_seconds=30, first_wait_seconds=0.01, longest_wait_seconds=0.05, stall_seconds=10)
IMPATIENT = QUICK.model_copy(update={"stall_seconds": 1.5})
SLOWER = 3  # seconds
DATA = os.urandom(3_000_001)
OTHER = os.urandom(3_000_001)

PASSING = [
    *(Fault("status", status) for status in (408, 429, 500, 502, 503, 504)),
    *(Fault(kind) for kind in ("refuse", "reset", "cut")),
    Fault("stall", SLOWER),
    Fault("slow", SLOWER),
]


def policy_for(fault: Fault) -> StorageConfig:
    return IMPATIENT if fault.value == SLOWER else QUICK


def fresh(fault: Fault, **changes: object) -> Fault:
    return Fault(**{**vars(fault), "seen": 0, "done": 0, **changes})  # type: ignore[arg-type]


def named(fault: Fault) -> str:
    return f"{fault.kind}{fault.value or ''}"


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fault", PASSING, ids=named)
def test_a_failure_that_passes_is_waited_out(bucket: Bucket, fault: Fault, times: int) -> None:
    bucket.put("set/a", DATA)
    bucket.proxy.faults.append(fresh(fault, times=times))
    assert storage.read_bytes(f"{bucket.uri}/set/a", policy_for(fault)) == DATA
    assert bucket.proxy.faults[0].done == times


def test_a_broken_read_goes_on_where_it_was(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    entry = storage.listing(bucket.uri, QUICK)["a"]
    bucket.proxy.faults.append(Fault("cut"))
    assert storage.read_range(f"{bucket.uri}/a", 1000, 2_900_000, QUICK, entry) == DATA[1000:2_901_000]
    assert bucket.proxy.requests["a"] == 2
    assert bucket.proxy.bytes["a"] < 2 * 2_900_000


@pytest.mark.parametrize("times", [1, 2])
def test_flipped_bits_of_an_object_are_never_accepted(bucket: Bucket, times: int) -> None:
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("flip", times=times))
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == DATA
    assert bucket.proxy.requests["a"] == times + 1


def test_an_object_replaced_between_two_reads_is_named(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    entry = storage.listing(bucket.uri, QUICK)["a"]
    assert storage.read_range(f"{bucket.uri}/a", 0, 1000, QUICK, entry) == DATA[:1000]
    bucket.put("a", OTHER)
    with pytest.raises(ObjectChanged, match=f"{bucket.uri}/a"):
        storage.read_range(f"{bucket.uri}/a", 1000, 1000, QUICK, entry)


def test_an_object_replaced_during_a_read_is_named(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("act_midway", action=lambda: bucket.put("a", OTHER)))
    entry = storage.listing(bucket.uri, QUICK)["a"]
    with pytest.raises(ObjectChanged, match=f"{bucket.uri}/a"):
        storage.read_range(f"{bucket.uri}/a", 0, len(DATA), QUICK, entry)


def test_who_reads_an_object_as_it_is_now_gets_the_one_that_replaced_it(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("act_midway", action=lambda: bucket.put("a", OTHER)))
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == OTHER


@pytest.mark.parametrize("status", [401, 403])
def test_no_permission_is_not_tried_again(bucket: Bucket, status: int) -> None:
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("status", status, times=100))
    with pytest.raises(StorageRefused) as caught:
        storage.read_bytes(f"{bucket.uri}/a", QUICK)
    message = str(caught.value)
    assert "anonymous" in message
    assert "storage.objects.get" in message
    assert bucket.name in message
    assert "\n" not in message
    assert bucket.proxy.faults[0].done == 1


def test_no_permission_to_list_or_to_write(bucket: Bucket) -> None:
    bucket.proxy.faults.append(Fault("status", 403, where="GET .*/o\\?", times=100))
    with pytest.raises(StorageRefused, match=r"storage\.objects\.list"):
        storage.listing(f"{bucket.uri}/set", QUICK)
    bucket.proxy.faults[:] = [Fault("status", 403, where="POST .*/o", times=100)]
    with pytest.raises(StorageRefused, match=r"storage\.objects\.create"):
        storage.create(f"{bucket.uri}/a", b"1", QUICK)


def test_what_is_not_there_is_named(bucket: Bucket) -> None:
    with pytest.raises(StorageRefused, match="no such object"):
        storage.read_bytes(f"{bucket.uri}/none", QUICK)
    with pytest.raises(StorageRefused, match="gs://no-such-bucket"):
        storage.listing("gs://no-such-bucket/set", QUICK)
    assert storage.listing(f"{bucket.uri}/none", QUICK) == {}


def test_the_deadline_ends_it(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.proxy.faults.append(Fault("status", 503, times=10**6))
    policy = QUICK.model_copy(update={"deadline_seconds": 0.3})
    with pytest.raises(StorageError, match=r"answered 503.*storage\.deadline_seconds"):
        storage.read_bytes(f"{bucket.uri}/a", policy)


def test_listing_is_of_what_lies_below(bucket: Bucket) -> None:
    for name in ("set/a", "set/b/c", "set2/d", "e"):
        bucket.put(name, name.encode())
    found = storage.listing(f"{bucket.uri}/set/", QUICK)
    assert {name: entry.bytes for name, entry in found.items()} == {"a": 5, "b/c": 7}
    assert found["a"].crc32c == storage.crc32c(b"set/a")


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
def test_upload(bucket: Bucket, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    storage.create(f"{bucket.uri}/bytes", data, QUICK)
    (tmp_path / "file").write_bytes(data)
    storage.create(f"{bucket.uri}/file", tmp_path / "file", QUICK)
    for name in ("bytes", "file"):
        assert storage.read_bytes(f"{bucket.uri}/{name}", QUICK) == data


@pytest.mark.parametrize("size", [1000, 20_000_000])
@pytest.mark.parametrize("fault", [f for f in PASSING if f.kind in ("status", "refuse", "slow")], ids=named)
def test_an_upload_is_tried_again(bucket: Bucket, fault: Fault, size: int) -> None:
    data = os.urandom(size)
    bucket.proxy.faults.append(fresh(fault, where="^(POST|PUT) ", times=2, every=2))
    storage.create(f"{bucket.uri}/a", data, policy_for(fault))
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == data


def test_an_upload_that_fails_leaves_nothing(bucket: Bucket) -> None:
    policy = QUICK.model_copy(update={"deadline_seconds": 0.3})
    for size, where in ((1000, "^POST"), (20_000_000, "^PUT")):
        bucket.proxy.faults[:] = [Fault("refuse", where=where, times=10**6)]
        with pytest.raises(StorageError):
            storage.create(f"{bucket.uri}/a", os.urandom(size), policy)
        bucket.proxy.faults.clear()
        assert bucket.names() == []


def test_nothing_is_overwritten_unasked(bucket: Bucket) -> None:
    storage.create(f"{bucket.uri}/a", b"one", QUICK)
    storage.create(f"{bucket.uri}/a", b"one", QUICK)  # as when an answer was lost: it is there, and it is this
    with pytest.raises(ObjectChanged, match="somebody else"):
        storage.create(f"{bucket.uri}/a", b"two", QUICK)
    storage.atomic_write(f"{bucket.uri}/a", b"three", QUICK)
    assert storage.read_bytes(f"{bucket.uri}/a", QUICK) == b"three"
    storage.delete(f"{bucket.uri}/a", QUICK)
    storage.delete(f"{bucket.uri}/a", QUICK)
    assert bucket.names() == []


def test_every_error_is_one_line(bucket: Bucket) -> None:
    for location in ("gs://", f"{bucket.uri}/none"):
        with pytest.raises(CapsnetError) as caught:
            storage.read_bytes(location, QUICK)
        assert "\n" not in str(caught.value)
