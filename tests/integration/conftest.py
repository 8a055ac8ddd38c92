from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.gcs import proxy as gcs_proxy
from tests.gcs import server as gcs_server
from tests.integration.harness import OFTEN, train


@dataclass
class Bucket:
    """A new bucket on a real server behind a proxy; ``proxy.faults`` says what goes wrong."""

    name: str
    proxy: gcs_proxy.Proxy

    @property
    def uri(self) -> str:
        return f"gs://{self.name}"

    def put(self, name: str, data: bytes) -> None:
        """Past the proxy."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self.proxy.upstream}/upload/storage/v1/b/{self.name}/o?{query}"
        urllib.request.urlopen(urllib.request.Request(url, data, method="POST")).close()

    def names(self) -> list[str]:
        with urllib.request.urlopen(f"{self.proxy.upstream}/storage/v1/b/{self.name}/o") as answer:
            return [item["name"] for item in json.load(answer).get("items", [])]

    def put_folder(self, folder: Path, prefix: str) -> str:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                self.put(f"{prefix}/{path.name}", path.read_bytes())
        return f"{self.uri}/{prefix}"


@pytest.fixture
def in_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the tests that use this only one runs at a time, however many workers pytest has.

    For what is promised in seconds, and for four ranks on two cores.
    """
    shared = tmp_path_factory.getbasetemp().parent  # of all workers
    with (shared / "in-turn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def small_run(made_once: Once) -> Path:
    """A run on one rank that nobody interrupts, with the fields of ``harness.SMALL``; to be read, not changed."""
    return made_once("run", lambda folder: train(folder / "run")) / "run"


@pytest.fixture(scope="session")
def whole(made_once: Once) -> Path:
    """As ``small_run``, with the tests and checkpoints of ``harness.OFTEN``."""
    return made_once("whole", lambda folder: train(folder / "run", fields=OFTEN)) / "run"


@pytest.fixture(scope="session")
def small_export(made_once: Once, small_run: Path) -> tuple[Path, str]:
    """(The export of ``small_run``, what was printed.)"""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "trainer", "export", str(small_run), str(folder / "model")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "printed").write_text(done.stdout)

    folder = made_once("export", make)
    return folder / "model", (folder / "printed").read_text()


@pytest.fixture(scope="session")
def small_pairs(made_once: Once) -> Path:
    """As ``small_run``, on scenes of two objects."""
    fields = {"data.overlap.enabled": "true", "data.augment.shift": "0", "model.image_size": "36"}
    return made_once("pairs", lambda folder: train(folder / "run", fields=fields)) / "run"


@pytest.fixture(scope="session")
def _gcs() -> Iterator[gcs_proxy.Proxy]:
    with gcs_proxy.running() as proxy, gcs_server.running(advertised=proxy.endpoint) as proxy.upstream:
        yield proxy


@pytest.fixture
def bucket(_gcs: gcs_proxy.Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    name = f"bucket-{abs(hash(request.node.nodeid)):x}"
    body = json.dumps({"name": name}).encode()
    url = f"{_gcs.upstream}/storage/v1/b?project=p"
    urllib.request.urlopen(
        urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    ).close()
    for counts in (_gcs.requests, _gcs.bytes, _gcs.log, _gcs.faults):
        counts.clear()
    _gcs.counted = name
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", _gcs.endpoint)
    yield Bucket(name, _gcs)
    _gcs.faults.clear()
