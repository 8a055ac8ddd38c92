"""How long ``capsnet data`` waits for a bucket is an option, and holds in its workers."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from trainer import cli, storage
from trainer.config import StorageConfig
from trainer.data.prepare import pool
from trainer.errors import StorageRefused
from trainer.storage import cloud


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = storage.standing()
    yield
    storage.stand_by(before)


@pytest.mark.parametrize("command", ["verify gs://b/set", "inspect gs://b/set", "prepare gs://b/set out"])
@pytest.mark.parametrize(("options", "seconds"), [([], 300), (["--storage.deadline_seconds", "7"], 7)])
def test_a_bucket_is_waited_for_as_long_as_asked(
    monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], seconds: float
) -> None:
    def listing(_: str, policy: StorageConfig) -> None:
        raise StorageRefused(f"{policy.deadline_seconds:g} s")

    monkeypatch.setattr(cloud, "listing", listing)
    parsed = cli._parsed(["data", *command.split(), *options])
    with pytest.raises(StorageRefused, match=f"^{seconds} s$"):
        parsed.run_command(parsed)


def test_workers_wait_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    pool.begin(StorageConfig(deadline_seconds=7))
    assert storage.standing().deadline_seconds == 7


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_other_deadlines_are_refused(text: str) -> None:
    with pytest.raises(Exception, match=f"{text}: give seconds"):
        cli._parsed(["data", "verify", "x", "--storage.deadline_seconds", text])
