"""How runs stand, from API objects that a cluster gave when each failure was made on it (captured.json)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import cast

import pytest

from trainer.cluster import facts, runs
from trainer.cluster.api import Cluster
from trainer.cluster.facts import Ended, Pod, Run
from trainer.cluster.follow import taken_away
from trainer.cluster.logs import merged
from trainer.cluster.report import COLUMNS, age, described, listed, table
from trainer.cluster.runs import History, Settings
from trainer.cluster.standing import Standing, State, standing, why_ended
from trainer.output.ledger import Attempt, End

CAPTURED = json.loads(Path(__file__).with_name("captured.json").read_text())


def captured(name: str) -> Run:
    entry = next(e for kind in ("jobs", "mpijobs") for e in CAPTURED[kind] if e["metadata"]["name"] == name)
    return facts.run_of(entry, CAPTURED["pods"], CAPTURED["events"])


def pod(name: str, **changed: object) -> Pod:
    return dataclasses.replace(Pod(name, f"uid-{name}", "train", "Running", 0.0), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "state", "code", "words"),
    [
        ("smoke-1125-171849", State.DONE, 0, ""),
        ("wrong", State.FAILED, 2, "exit 2: unknown recipe nonsense; 'capsnet recipes' lists all"),
        ("memory", State.FAILED, 1, "out of memory: killed at the container's limit of 100Mi (gave up: 3 attempts"),
        ("badimage", State.PENDING, None, "image nowhere.invalid/capsnet:1 cannot be pulled: ErrImagePull: failed"),
        ("gpu", State.PENDING, None, "no node has enough GPUs and CPU and memory free: 0/1 nodes are available: 1"),
        ("quota", State.PENDING, None, "quota small is used up: exceeded quota: small, requested: requests.memory=4Gi"),
        ("invalid", State.FAILED, 2, "the MPI Operator refuses it: Found validation errors: spec.mpiReplicaSpecs[La"),
    ],
)
def test_each_failure_is_told_in_plain_words(name: str, state: State, code: int | None, words: str) -> None:
    found = standing(captured(name))
    assert (found.state, found.code) == (state, code)
    assert found.cause.startswith(words)
    assert bool(found.cause) == bool(words)


def test_a_pod_that_ended_before_another_runs_or_waits() -> None:
    run = captured("badimage")
    ended = pod("a", phase="Failed", ended=Ended(75, "Error", "worker-1 taken away", 1.0))
    assert standing(dataclasses.replace(run, pods=(ended, pod("b")))).state is State.RUNNING
    waits = standing(dataclasses.replace(run, pods=(ended, pod("b", phase="Pending", node="n"))))
    assert waits.state is State.RESTARTING
    assert waits.cause == "exit 75: worker-1 taken away; starting on n"


def test_an_evicted_worker_is_no_end() -> None:
    entry = next(e for e in CAPTURED["mpijobs"] if e["metadata"]["name"] == "invalid")
    evicted = {"type": "Failed", "status": "True", "reason": "MPIJobEvicted", "message": "1/2 workers are evicted"}
    changed = {**entry, "status": {"conditions": [evicted]}}
    assert standing(dataclasses.replace(facts.run_of(changed, [], []), pods=(pod("a"),))).state is State.RUNNING


def test_a_pod_that_is_done_is_no_restart() -> None:
    done = pod("a", phase="Succeeded", ended=Ended(0, "Completed", "", 1.0))
    assert standing(dataclasses.replace(captured("badimage"), pods=(done,))).state is State.RUNNING


def test_a_pod_that_vanished_is_told() -> None:
    run = dataclasses.replace(captured("badimage"), pods=())
    assert taken_away(pod("a"), run) == "a was taken away: deleted, preempted, or its node is gone"
    assert taken_away(None, run) == taken_away(pod("a"), dataclasses.replace(run, pods=(pod("a"),))) == ""


def test_a_worker_that_waits_holds_the_run() -> None:
    run = dataclasses.replace(captured("invalid"), events=())
    launcher = pod("l", role="launcher")
    worker = pod("w", role="worker-1", phase="Pending", unscheduled="0/2 nodes are available: 2 Insufficient cpu.")
    found = standing(dataclasses.replace(run, pods=(launcher, worker)))
    assert found.state is State.PENDING
    assert found.cause == "worker-1: no node has enough CPU free: 0/2 nodes are available: 2 Insufficient cpu"


STEP = "step 5000/9000  epoch 5.0  loss 0.1"
ATTEMPT = "capsnet: attempt 2"
LOST = End(75, "worker-1 was taken away", True, 4900, 0.0)


@pytest.mark.parametrize(
    ("log", "waits", "end", "state", "words"),
    [
        ([STEP], False, None, State.RUNNING, STEP),
        ([], True, None, State.PENDING, "worker-1: starting on n"),
        ([STEP], True, LOST, State.RESTARTING, "worker-1: starting on n"),  # why is not in the ledger yet
        (
            [STEP, "capsnet: trying again in 1 s, from the last checkpoint"],
            False,
            LOST,
            State.RESTARTING,
            "exit 75: wo",
        ),
        ([STEP, ATTEMPT], True, LOST, State.RESTARTING, "exit 75: worker-1 was taken away; worker-1: starting on n"),
        ([ATTEMPT, "world of 2"], False, LOST, State.RESTARTING, "exit 75: worker-1 was taken away"),
        ([ATTEMPT], False, None, State.RESTARTING, "from the last checkpoint"),  # a ledger out of reach
        ([STEP, ATTEMPT, STEP], False, LOST, State.RUNNING, STEP),
        ([STEP, ATTEMPT], False, End(2, "no such file", False, 4900, 0.0), State.RUNNING, ""),  # about to fail
    ],
)
def test_a_run_that_begins_again_says_why_from_the_ledger(
    monkeypatch: pytest.MonkeyPatch, log: list[str], waits: bool, end: End | None, state: State, words: str
) -> None:
    phase = {"phase": "Pending", "node": "n"} if waits else {}
    pods = (pod("l", role="launcher"), pod("w", role="worker-1", **phase))
    run = dataclasses.replace(captured("invalid"), events=(), pods=pods)
    monkeypatch.setattr(runs, "all_runs", lambda cluster: [run])
    monkeypatch.setattr(runs, "log_lines", lambda cluster, pod, tail: [("", line) for line in log])
    monkeypatch.setattr(runs, "ended_before", lambda cluster, run: end)
    line = listed(cast(Cluster, None)).splitlines()[1]
    assert line.split()[2] == state
    assert words[:30] in line


def test_suspension_names_the_queue() -> None:
    run = dataclasses.replace(captured("gpu"), suspended=True, pods=())
    assert standing(run).cause == "suspended: by a queue, or by a person"
    assert standing(dataclasses.replace(run, queue="team")).cause == "waits in the queue team"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, "evicted: The node was low"),
        ({"disrupted": "PreemptionByScheduler: by x"}, "preempted by a pod of higher priority (by x)"),
        ({"ended": Ended(137, "Error", "", 1.0)}, "exit 137: killed without a word"),
        ({"ended": Ended(3, "Error", "", 1.0)}, "exit 3: training diverged"),
    ],
)
def test_how_a_pod_ended(ending: dict[str, object], words: str) -> None:
    assert why_ended(pod("a", phase="Failed", **ending)).startswith(words)


def test_the_list_fits_the_terminal() -> None:
    names = ["wrong", "memory", "badimage", "gpu", "quota", "invalid", "smoke-1125-171849"]
    long = dataclasses.replace(captured("gpu"), name="n" * 50)
    rows = [(run, standing(run), "step 12/100  epoch 0.1") for run in [long, *map(captured, names)]]
    lines = table(rows, now=rows[1][0].created + 7300).splitlines()
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= COLUMNS
    assert lines[2].split()[:4] == ["wrong", "Job", "failed", "2h"]


def test_details_say_the_cause_once() -> None:
    run = captured("wrong")
    text = described(run, standing(run), "", Settings(recipe="nonsense"), History(), run.created)
    assert text.count("unknown recipe nonsense") == 1


def test_stops_without_a_new_checkpoint_are_told_with_what_they_took() -> None:
    def stopped(step: int, after: int, seconds: float = 600.0) -> Attempt:
        return Attempt(1, "j", step, 0.0, 0.0, End(75, "stopped on request", True, after, seconds))

    failed = Attempt(1, "j", 400, 0.0, 0.0, End(75, "killed", False, 400, 60.0))
    attempts = [stopped(-1, -1), stopped(-1, 400), stopped(400, 400), failed, stopped(400, 400)]

    def told(step: int, *attempts: Attempt) -> str:
        text = described(captured("wrong"), Standing(State.RUNNING), "", Settings(), History(attempts, step), 0.0)
        return " ".join(text.split("attempts:")[0].split())

    words = "stops 2 without a new checkpoint since step 400, 20m of training lost: "
    assert words in told(400, *attempts)
    assert words in told(400, *attempts, Attempt(6, "j", 400, 0.0, 0.0))
    assert "without a new" not in told(420, *attempts, Attempt(6, "j", 400, 0.0, 0.0))  # the one that lives has saved
    assert "without a new" not in told(400, *attempts[:4])
    assert "2 without a new checkpoint yet" in told(-1, *attempts[:1] * 2)


def test_lines_of_pods_are_merged_by_time() -> None:
    pods = (pod("a"), pod("b", created=5.0), pod("w", role="worker-0"))
    found = {
        "uid-a": [("2026-01-01T00:00:01.5Z", "one"), ("2026-01-01T00:00:03Z", "three")],
        "uid-b": [("2026-01-01T00:00:04Z", "four")],
        "uid-w": [("2026-01-01T00:00:02Z", "two")],
    }
    assert list(merged(pods, found)) == ["train    | one", "worker-0 | two", "train    | three", "train#2  | four"]


@pytest.mark.parametrize(("seconds", "words"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (400000, "5d")])
def test_age(seconds: float, words: str) -> None:
    assert age(seconds) == words
