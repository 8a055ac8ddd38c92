"""A run whose directory is a bucket is the run whose directory is a folder, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gcs.proxy import Fault
from tests.integration.conftest import Bucket
from tests.integration.harness import OFTEN, PATIENCE, SMALL, STEPS, Run, start
from trainer import checkpoint
from trainer.errors import ObjectChanged
from trainer.output import copies, evaluated, newest, ranklog, streams
from trainer.output.ledger import Ledger
from trainer.output.sync import LOOKS, sync
from trainer.storage import Entry, delete, listing

TIMED = ("images_per_second", "step_seconds", "input_wait", "seconds", "peak_memory_mib", "wait_")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "capsnet" / "runs"


def in_bucket(uri: str, *, new: bool = True, **options: Any) -> Run:
    values = {**SMALL, **OFTEN, **options.pop("fields", {})}
    return start(
        Path("unused"), "--run", uri, recipe="sabour2017" if new else "", fields=values, small=False, **options
    )


def records(uri: str, folder: Path) -> list[dict[str, Any]]:
    """What the bucket says that was measured, without times."""
    streams.fetch(uri, folder)
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in each.items() if not key.startswith(TIMED)} for each in found]


def assert_same(uri: str, whole: Path, folder: Path) -> None:
    """Same records, same weights and optimizer, bit for bit."""
    theirs = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    theirs = [{key: value for key, value in each.items() if not key.startswith(TIMED)} for each in theirs]
    assert records(uri, folder) == theirs
    with copies.local(uri, "last") as run:
        ours_end = checkpoint.choose(run / "checkpoints", "last", print)
    theirs_end = checkpoint.choose(whole / "checkpoints", "last", print)
    assert ours_end.state.step == theirs_end.state.step == STEPS
    for name, tensor in theirs_end.tensors.items():
        np.testing.assert_array_equal(ours_end.tensors[name], tensor, err_msg=name)


def wait_for_checkpoint(run: Run, uri: str, step: int) -> None:
    run.wait_for(lambda: newest.step(uri) >= step)


def test_interrupted_and_resumed_it_is_the_run_that_was_not(
    bucket: Bucket, whole: Path, tmp_path: Path, scratch: Path
) -> None:
    uri = f"{bucket.uri}/runs/one"
    for attempt, (number, step) in enumerate(((signal.SIGTERM, 7), (signal.SIGKILL, 21))):
        run = in_bucket(uri, new=attempt == 0)
        wait_for_checkpoint(run, uri, step)
        run.signal(number)
        code, output = run.finish()
        assert code == (75 if number == signal.SIGTERM else -9), output
    code, output = in_bucket(uri, new=False).finish()
    assert code == 0, output
    assert f"resumed from {uri}/checkpoints/step-" in output
    assert_same(uri, whole, tmp_path / "fetched")
    ends = [attempt.end and attempt.end.code for attempt in Ledger(uri).attempts()]
    assert ends == [75, None, 0]
    assert not [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"]


def test_two_ranks_write_one_run_and_each_leaves_its_log_of_each_attempt(bucket: Bucket, tmp_path: Path) -> None:
    uri = f"{bucket.uri}/runs/two"
    run = in_bucket(uri, ranks=2)
    wait_for_checkpoint(run, uri, 7)
    run.signal(signal.SIGTERM)
    assert run.finish()[0] == 75
    code, output = in_bucket(uri, new=False, ranks=2).finish()
    assert code == 0, output
    steps = [each["step"] for each in records(uri, tmp_path) if each["kind"] == "train"]
    assert steps == [*range(3, STEPS, 3), STEPS]
    found = ranklog.read(uri)
    assert {attempt: sorted(ranks) for attempt, ranks in found.items()} == {1: [0, 1], 2: [0, 1]}
    for rank in (0, 1):
        assert found[1][rank][0][1].startswith(f"rank {rank} of 2 on ")
        assert found[1][rank][-1][1].startswith("stopped on request at step ")
    assert any(text.startswith("resumed from ") for _, text in found[2][0])


def test_an_outage_that_passes_is_waited_out(bucket: Bucket, whole: Path, tmp_path: Path) -> None:
    uri = f"{bucket.uri}/runs/one"
    run = in_bucket(uri, fields={"storage.first_wait_seconds": "0.05"})
    wait_for_checkpoint(run, uri, 7)
    bucket.proxy.faults.append(Fault("status", 503, times=6))
    code, output = run.finish()
    assert code == 0, output
    assert_same(uri, whole, tmp_path)


def test_a_second_process_is_refused_and_a_zombie_is_fenced(bucket: Bucket) -> None:
    uri = f"{bucket.uri}/runs/one"
    run = in_bucket(uri, fields={"train.epochs": "20"})
    wait_for_checkpoint(run, uri, 7)
    code, output = in_bucket(uri, new=False).finish()
    assert code == 2
    assert "in use by another process" in output
    other = Ledger(uri)
    with pytest.raises(Exception, match=r"trains there \(attempt 1, sign of life"):
        other.begin("another job")
    claimed = claim(uri, attempt=2)  # as one that a cluster began, because it took the running one for dead
    code, output = run.finish()
    assert code == 2, output
    assert f"{uri}: attempt 2 at this run writes there now; attempt 1 stops" in output
    assert newest.read(uri).newest == claimed


def claim(uri: str, attempt: int) -> newest.Newest:
    """What a later attempt puts in the bucket while an earlier one still writes there, between two of its writes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = newest.read(uri)
        claimed = newest.Newest(attempt, seen.newest.checkpoints)
        try:
            newest.replace(uri, seen, claimed)
        except ObjectChanged:
            assert time.monotonic() < deadline, f"{uri} is always written by somebody else first"
        else:
            return claimed


def test_damaged_newest_checkpoints_are_passed_over(
    bucket: Bucket, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"{bucket.uri}/runs/one"
    run = in_bucket(uri, fields={"checkpoint.keep_last": "3"})
    wait_for_checkpoint(run, uri, 21)
    run.signal(signal.SIGTERM)
    assert run.finish()[0] == 75
    *_, older, gone, changed = newest.read(uri).newest.checkpoints
    bucket.put(f"runs/one/{changed.place}/{checkpoint.TENSORS}", b"damaged")
    delete(f"{uri}/{gone.place}/{checkpoint.TENSORS}")
    with copies.local(uri, "last") as local:
        assert checkpoint.choose(local / "checkpoints", "last", print).state.step == older.step
    assert capsys.readouterr().out.count("damaged checkpoint") == 2
    code, output = in_bucket(uri, new=False).finish()
    assert code == 0, output
    for last in (gone, changed):
        assert f"damaged checkpoint: {uri}/checkpoints/step-{last.step:08d}/{checkpoint.TENSORS}: " in output
        assert not [name for name in bucket.names() if last.place in name]  # it makes way with the next one
    assert f"resumed from {uri}/checkpoints/step-{older.step:08d}" in output
    assert_same(uri, whole, tmp_path / "fetched")


def test_a_bucket_that_is_not_there_is_one_line(bucket: Bucket) -> None:
    code, output = in_bucket(f"{bucket.uri}-not/runs/one").finish()
    assert code == 2
    assert output.count("\n") == 1
    assert "no bucket" in output


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """(a folder, the address of a TensorBoard that watches it)."""
    folder = tmp_path / "board"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--port",
        "0",
        "--reload_interval",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        yield folder, "http://" + line.split("http://")[1].split()[0].rstrip("/")
        process.kill()


def steps_shown(address: str, run: str, tag: str = "loss/total") -> list[int]:
    url = f"{address}/data/plugin/scalars/scalars?tag={tag}&run={run}"
    try:
        with urllib.request.urlopen(url) as answer:
            return [int(point[1]) for point in json.load(answer)]
    except OSError:
        return []


def test_tensorboard_follows_through_a_restart_and_a_take_back(
    bucket: Bucket, board: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = board
    fields = {"log.every_steps": "1", "train.epochs": "2"}
    uri = f"{bucket.uri}/runs/one"
    command = [sys.executable, "-m", "trainer", "sync", f"{bucket.uri}/runs", str(folder), "--follow", "--every", "0.5"]
    follow = subprocess.Popen(command)
    try:
        run = in_bucket(uri, fields=fields)
        wait_for_checkpoint(run, uri, 14)
        run.wait_for(lambda: len(steps_shown(address, "one")) > 0)
        bucket.proxy.faults.append(Fault("status", 403, where="^(POST|PUT) ", times=10**6))
        code, output = run.finish()
        assert code == 2, output
        [line] = [line for line in output.splitlines() if line.startswith("capsnet: ")]
        assert line == output.splitlines()[-1]
        assert "anonymous lacks permission storage.objects.create on bucket" in line
        assert "Traceback" not in output
        bucket.proxy.faults.clear()
        follow.kill()
        follow.wait()
        follow = subprocess.Popen(command)
        code, output = in_bucket(uri, new=False, fields=fields).finish()
        assert code == 0, output
        deadline = time.monotonic() + PATIENCE
        while steps_shown(address, "one") != list(range(1, 4 * STEPS + 1)):
            assert time.monotonic() < deadline, steps_shown(address, "one")
            time.sleep(0.5)
    finally:
        follow.kill()
        follow.wait()
    assert sync(f"{bucket.uri}/runs", folder) == []  # nothing is brought twice


def test_a_file_is_cut_where_a_later_attempt_took_it_back(bucket: Bucket, tmp_path: Path) -> None:
    uri, run = f"{bucket.uri}/runs/one", tmp_path / "run"
    run.mkdir()
    newest.replace(uri, newest.read(uri), newest.Newest(1))
    big = os.urandom(streams.PART_BYTES + 1000)
    (run / "metrics.jsonl").write_bytes(big)
    profile = "plugins/profile/now/host.xplane.pb"
    (run / profile).parent.mkdir(parents=True)
    (run / profile).write_bytes(big[:100])
    first = streams.Streams(uri, 1, run, print)
    first.begin()
    here = tmp_path / "here"
    sync(bucket.uri, here)
    assert (here / "runs" / "one" / profile).read_bytes() == big[:100]
    place = here / "runs" / "one" / "metrics.jsonl"
    inode = place.stat().st_ino
    assert place.read_bytes() == big
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"more")
    first.send()
    [change] = sync(bucket.uri, here)
    assert (change.cut, change.appended) == (0, 4)
    taken_back = big[: streams.PART_BYTES + 10] + b"other"
    (run / "metrics.jsonl").write_bytes(taken_back)
    streams.Streams(uri, 2, run, print).begin()
    [change] = sync(bucket.uri, here)
    assert (change.cut, change.appended) == (994, 5)
    assert place.read_bytes() == taken_back
    assert place.stat().st_ino == inode


def test_what_changes_between_a_listing_and_its_reads_is_brought_as_it_came_to_be(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, run, here = f"{bucket.uri}/runs/one", tmp_path / "run", tmp_path / "here"
    scores = [tmp_path / "first", tmp_path / "second"]
    for folder in (run, *scores):
        folder.mkdir()
        (folder / f"events.out.tfevents.{folder.name}").write_text(folder.name)
    newest.replace(uri, newest.read(uri), newest.Newest(1))
    streams.Streams(uri, 1, run, print).begin()
    evaluated.store(uri, "test", scores[0])

    def restarted() -> None:
        streams.Streams(uri, 2, run, print).begin()
        streams.forget_before(uri, 2)

    def scored(number: int) -> None:
        evaluated.store(uri, "test", scores[number])

    for looks, score, change in (
        (LOOKS, "first", restarted),
        (LOOKS, "second", lambda: scored(1)),
        (1, "first", lambda: scored(0)),  # what a call leaves is no error, and the next one brings it
    ):
        left, place_here = [change], here / f"{looks}-{score}"

        def then_changed(place: str, left: list[Callable[[], object]] = left) -> dict[str, Entry]:
            found = listing(place)
            while left:
                left.pop()()
            return found

        with monkeypatch.context() as patched:
            patched.setattr("trainer.output.sync.listing", then_changed)
            patched.setattr("trainer.output.sync.LOOKS", looks)
            sync(bucket.uri, place_here)
        if looks == 1:
            assert not list(place_here.rglob(f"events.*.{score}"))
            sync(bucket.uri, place_here)
        brought = {path.name: path.read_text() for path in place_here.rglob("events.*")}
        assert brought == {f"events.out.tfevents.{name}": name for name in ("run", score)}


def test_what_is_made_of_a_run_in_a_bucket_and_its_score_comes_to_tensorboard(
    bucket: Bucket, board: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = board
    uri = f"{bucket.uri}/runs/one"
    code, output = in_bucket(uri, fields={"log.profile_steps": "2,3"}).finish()
    assert code == 0, output
    command = [sys.executable, "-m", "trainer", "evaluate", uri, "--affine"]
    stored = []
    for _ in range(2):  # the second in the place of the first
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"checkpoint: {uri}/checkpoints/" in printed
        assert f"{uri}/evaluation/affine\n" in printed
        stored.append([name for name in bucket.names() if "/evaluation/" in name])
        sync(f"{bucket.uri}/runs", folder)
        assert [f"runs/{path.relative_to(folder)}" for path in folder.rglob("evaluation/**/*tfevents*")] == stored[-1]
        assert sync(f"{bucket.uri}/runs", folder) == []
    (first,), (second,) = stored
    assert first != second
    (profile,) = folder.glob("one/plugins/profile/*/*.xplane.pb")
    assert b"MatMul" in profile.read_bytes()
    deadline = time.monotonic() + PATIENCE
    while not (steps := steps_shown(address, "one/evaluation/affine", "evaluation/accuracy")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert steps == [STEPS]

    words = [sys.executable, "-m", "trainer", "export", uri, str(tmp_path / "model")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    more = start(Path("unused"), "--weights-from", uri, "--run", f"{bucket.uri}/more", fields={"train.epochs": "0.05"})
    code, output = more.finish()
    assert code == 0, output
    assert "weights of" in output
