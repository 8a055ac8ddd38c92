from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from trainer.doctor import cloud


def doctor(*words: str, path: Path | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    command = [sys.executable, "-m", "trainer", "doctor", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)}


def test_two_real_ranks_and_a_real_bucket(bucket: Bucket) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed: make horovod")
    bucket.put("set/a", b"abc")
    code, found = doctor("--uri", f"{bucket.uri}/set")
    assert code == 0, found
    assert found["two ranks"]["said"] == "started by mpirun, and add up to 3"
    assert "1 objects, the first can be read" in found["bucket"]["said"]
    assert found["tensorflow"]["level"] == found["horovod"]["level"] == "ok"


def test_what_is_broken_is_told_with_its_mend(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('libcudart.so is missing')")
    code, found = doctor("--uri", f"{bucket.uri}-not/set", path=tmp_path)
    assert code == 1
    assert found["tensorflow"] == {
        "name": "tensorflow",
        "level": "problem",
        "said": "ImportError: libcudart.so is missing",
        "mend": found["tensorflow"]["mend"],
    }
    assert "make" in found["tensorflow"]["mend"]
    assert found["two ranks"]["level"] == "skipped"
    assert found["bucket"]["level"] == "problem"
    assert "no bucket" in found["bucket"]["said"]


def test_it_fits_a_terminal() -> None:
    command = [sys.executable, "-m", "trainer", "doctor", "--no-ranks"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.endswith("nothing is in the way\n")


def test_a_place_that_can_be_written_is_left_as_it_was(bucket: Bucket, tmp_path: Path) -> None:
    for place in (f"{bucket.uri}/runs", str(tmp_path)):
        found = cloud.writing(place)
        assert (found.level, found.said) == ("ok", f"{place}: a small object was written, read and deleted")
    assert not bucket.names()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_done_is_said_with_the_permission(bucket: Bucket) -> None:
    for method, permission in (("POST", "create"), ("DELETE", "delete")):
        bucket.proxy.faults[:] = [Fault("status", 403, where=f"{method} ", times=100)]
        found = cloud.writing(bucket.uri)
        assert found.level == "problem"
        assert f"lacks permission storage.objects.{permission} on bucket {bucket.name}" in found.said
        assert found.said.count("cannot") == 1
    bucket.proxy.faults.clear()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    found = cloud.writing(str(tmp_path / "none"))
    assert (found.level, "No such file or directory" in found.said) == ("problem", True)


def test_of_a_large_prefix_a_page_is_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "PAGE", 3)
    for number in range(5):
        bucket.put(f"set/{number}", b"abc")
    assert cloud.bucket(f"{bucket.uri}/set").said.endswith("/set: 3 objects or more, the first can be read")
