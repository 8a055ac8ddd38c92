"""Indexing, inspecting and verifying what lies in a bucket: damage on the way is read again, damage there is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from tests.unit.data import foreign_sets
from trainer.data import inspect, verify
from trainer.data.foreign import write_index
from trainer.data.index import Index, folder_of, load_index
from trainer.errors import DataError

SHARD = "tiny-train.tfrecord-00003-of-00005"


def indexed(source: str, destination: str) -> Index:
    return write_index(source, destination, name=None, licence="", command="c", class_names=None, report=None)


def verified(uri: str) -> list[str]:
    lines: list[str] = []
    assert verify.run(uri, 2, lines.append) == sum("no fault" not in line for line in lines[:-1])
    return lines


@pytest.mark.parametrize("faulty", [False, True])
def test_records_of_others_in_a_bucket(bucket: Bucket, tmp_path: Path, faulty: bool) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    local = indexed(str(folder), str(tmp_path / "index"))
    uri = bucket.put_folder(folder, "set")
    if faulty:
        bucket.proxy.faults.extend([Fault("flip", every=5, times=4), Fault("cut", every=6, times=2)])
    beside, elsewhere = indexed(uri, uri), indexed(uri, str(tmp_path / "other"))
    assert beside.splits == elsewhere.splits == local.splits
    assert (beside.location, elsewhere.location) == ("", uri)
    assert load_index(uri) == beside
    assert indexed(uri, uri) == beside
    for place in (uri, str(tmp_path / "other")):
        assert verified(place)[-1] == "240 records in 7 shards verified, no fault"
    inspect.run(uri, tmp_path / "bucket.png", lambda line: None)
    inspect.run(str(tmp_path / "index"), tmp_path / "local.png", lambda line: None)
    np.testing.assert_array_equal(Image.open(tmp_path / "bucket.png"), Image.open(tmp_path / "local.png"))


def test_damage_in_the_bucket_is_told(bucket: Bucket, tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    indexed(str(folder), str(folder))
    uri = bucket.put_folder(folder, "set")
    data = bytearray((folder / SHARD).read_bytes())
    data[len(data) // 2 + 50] ^= 1  # in the data of the record in the middle
    bucket.put(f"set/{SHARD}", bytes(data))
    fault, *_, last = verified(uri)
    assert fault.startswith(f"{uri}/{SHARD}: record ")
    assert fault.endswith("wrong checksum of its data")
    assert last == "239 records in 7 shards read, 1 fault"
    with pytest.raises(DataError, match=f"{SHARD}: record [0-9]+: wrong checksum of its data"):
        indexed(uri, f"{uri}-index")


def test_an_index_in_a_bucket_cannot_point_to_this_machine(bucket: Bucket, tmp_path: Path) -> None:
    folder = foreign_sets.tfds(tmp_path / "set")
    with pytest.raises(DataError, match="cannot point to local files"):
        indexed(str(folder), f"{bucket.uri}/set")
    assert bucket.names() == []


def test_the_embedded_set_copied_to_a_bucket(bucket: Bucket) -> None:
    uri = bucket.put_folder(Path(folder_of("embedded")), "set")
    bucket.proxy.faults.append(Fault("flip", every=3, times=5))
    assert verified(uri)[-1] == "12,000 records in 20 shards verified, no fault"
