"""States, read off objects that a real cluster gave (``objects/``, with fields that no rule looks at left out)."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainer.cluster.state import progress_in, role_of, state_of

OBJECTS = Path(__file__).parent / "objects"


def seen(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = json.loads((OBJECTS / f"{name}.json").read_text())
    return found["run"], found["pods"]


def told(run: dict[str, Any], pods: list[dict[str, Any]], warnings: list[str] | None = None) -> tuple[str, str]:
    now = datetime.fromisoformat(run["metadata"]["creationTimestamp"]) + timedelta(seconds=90)
    found = state_of(run, pods, warnings or [], now)
    assert found.age_seconds == 90
    return found.state, found.why


@pytest.mark.parametrize(
    ("name", "state", "why"),
    [
        ("done", "done", ""),
        ("wrong", "failed", "exit 2: unknown recipe nonsense; 'capsnet recipes' lists all"),
        (
            "gpu",
            "pending",
            "train: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Ins",
        ),
        ("image", "pending", "train: ImagePullBackOff: Back-off pulling image"),
        ("memory", "failed", "exit 1: gave up: 3 attempts ended the same way before the first checkpoint: rank 0"),
    ],
)
def test_what_a_cluster_says_in_plain_words(name: str, state: str, why: str) -> None:
    found, reason = told(*seen(name))
    assert found == state
    assert reason.startswith(why)


def test_a_container_that_was_killed_before_it_could_say_why() -> None:
    run, pods = seen("memory")
    ended = pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    del ended["message"]
    assert told(run, pods) == ("failed", "out of memory: the limit is 100Mi; give it more, or a smaller batch")
    ended.update(reason="Error", exitCode=137)
    assert told(run, pods) == ("failed", "exit 137")


def running(pods: list[dict[str, Any]], phase: str = "Running") -> list[dict[str, Any]]:
    new = copy.deepcopy(pods)
    new[0]["status"] = {
        "phase": phase,
        "containerStatuses": [{"name": "train", "image": "i", "state": {"running": {}}}],
    }
    return new


def test_a_pod_after_one_that_ended() -> None:
    run, ended = seen("wrong")
    run["status"] = {}
    assert told(run, [*ended, *running(ended)])[0] == "running"
    assert told(run, [*ended, *running(ended)])[1].startswith("again, after: exit 2: unknown recipe")
    assert told(run, ended)[0] == "restarting"
    assert told(run, running(ended)) == ("running", "")
    assert told(run, running(ended, "Succeeded"))[0] == "running"


def test_before_there_are_pods() -> None:
    run, _ = seen("wrong")
    run["status"] = {}
    assert told(run, []) == ("pending", "its pods are to be made")
    assert told(run, [], ["ValidationError: invalid"]) == ("pending", "ValidationError: invalid")
    run["spec"]["suspend"] = True
    assert told(run, [])[0] == "suspended"


def mpi(role: str, name: str, status: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"training.kubeflow.org/job-role": role},
            "creationTimestamp": "2026-01-01",
        },
        "spec": {"containers": [{"name": role}]},
        "status": status,
    }


def test_a_job_over_several_pods_waits_for_its_workers_and_survives_an_eviction() -> None:
    run, _ = seen("wrong")
    run.update(kind="MPIJob", spec={"runPolicy": {"suspend": False}})
    evicted = {"type": "Failed", "status": "True", "reason": "MPIJobEvicted", "message": "1/2 workers are evicted"}
    run["status"] = {"conditions": [evicted]}
    launcher = mpi("launcher", "a-launcher-x", {"phase": "Running"})
    lost = mpi("worker", "a-worker-0", {"phase": "Failed", "reason": "Evicted", "message": "disk"})
    new = mpi("worker", "a-worker-1", {"phase": "Pending"})
    assert told(run, [launcher, lost, new]) == ("pending", "worker-1: its container is being made")
    assert told(run, [launcher, lost]) == ("running", "")
    assert [role_of(pod) for pod in (launcher, lost)] == ["launcher", "worker-0"]
    run["status"]["conditions"].append({"type": "Succeeded", "status": "True"})
    assert told(run, [launcher])[0] == "done"


def test_progress_is_the_last_line_that_says_a_step() -> None:
    log = "recipe quick\nstep 1/9  loss 1  ETA -:--\nstep 5/9  loss 0.5  ETA 0:04\nepoch 1: test accuracy 80 %\n"
    assert progress_in(log) == "step 5/9  loss 0.5  ETA 0:04"
    assert progress_in("nothing\n") == ""
