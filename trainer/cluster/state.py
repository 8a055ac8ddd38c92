"""How a run stands, in plain words: from its object, its pods, and what was written to events about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

PENDING, RUNNING, AGAIN, SUSPENDED = "pending", "running", "restarting", "suspended"
DONE, FAILED = "done", "failed"
OVER = (DONE, FAILED)
STEP = re.compile(r"step (\d+)/(\d+) .*")
ROLE = "training.kubeflow.org/job-role"
EVICTED = "MPIJobEvicted"
"""The operator calls a job failed whose worker was evicted, and goes on with it."""

Thing = dict[str, Any]


@dataclass(frozen=True)
class State:
    """``why``: what it waits for, what ended the attempt before, or what ended it; '' where there is nothing to say."""

    name: str
    kind: str
    state: str
    why: str
    age_seconds: float


def state_of(run: Thing, pods: Sequence[Thing], warnings: Sequence[str], now: datetime) -> State:
    """Reads the answer off what the cluster says. Pods the oldest first; ``warnings`` of the run, the newest last."""
    created = datetime.fromisoformat(run["metadata"]["creationTimestamp"])
    state, why = _state(run, pods, warnings)
    return State(run["metadata"]["name"], run["kind"], state, why, (now - created).total_seconds())


def _state(run: Thing, pods: Sequence[Thing], warnings: Sequence[str]) -> tuple[str, str]:
    held = {
        each["type"]: each
        for each in run.get("status", {}).get("conditions", [])
        if each["status"] == "True" and each.get("reason") != EVICTED
    }
    ends = [word for pod in leading(pods) if (word := end_of(pod))]
    if "Complete" in held or "Succeeded" in held:
        return DONE, ""
    if "Failed" in held:
        return FAILED, ends[-1] if ends else held["Failed"].get("message", "")
    if (run["spec"].get("runPolicy") or run["spec"]).get("suspend"):
        return SUSPENDED, "by its queue, or by a person"
    alive = [pod for pod in pods if pod["status"].get("phase") in ("Pending", "Running")]
    waiting = [(pod, word) for pod in alive if (word := waits_for(pod))]
    if waiting:
        pod, word = waiting[0]
        return PENDING, f"{role_of(pod)}: {word}"
    if any(pod["status"].get("phase") == "Running" for pod in leading(alive)):
        return RUNNING, f"again, after: {ends[-1]}" if ends else ""
    if any(pod["status"].get("phase") == "Succeeded" for pod in leading(pods)):
        return RUNNING, "it has ended well, and its job is being closed"
    if ends:
        return AGAIN, ends[-1]
    return PENDING, warnings[-1] if warnings else "its pods are to be made"


def leading(pods: Sequence[Thing]) -> list[Thing]:
    """Those that run 'capsnet job': all of a Job, the launchers of an MPIJob."""
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(ROLE, "launcher") == "launcher"]


def role_of(pod: Thing) -> str:
    """'train', 'launcher' or 'worker-1'."""
    labels = pod["metadata"].get("labels", {})
    if labels.get(ROLE) == "worker":
        return "worker-" + str(pod["metadata"]["name"]).rpartition("-")[2]
    return str(labels.get(ROLE, "train"))


def waits_for(pod: Thing) -> str:
    """Why a pod does not run: the scheduler's words, or the kubelet's of its container; '' where it does."""
    for status in pod["status"].get("containerStatuses", []):
        waiting = status.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {_short(waiting.get('message', status.get('image', '')))}"
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {_short(condition.get('message', ''))}"
    return "its container is being made" if pod["status"].get("phase") == "Pending" else ""


def end_of(pod: Thing) -> str:
    """How a pod ended: the program's own line, or what Kubernetes knows; '' where it has not, or well."""
    reason, message = pod["status"].get("reason", ""), pod["status"].get("message", "")
    if reason in ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Terminated"):
        return f"{reason.lower()}: {_short(message)}"
    for status in pod["status"].get("containerStatuses", []):
        ended = status.get("state", {}).get("terminated")
        if not ended or ended.get("exitCode") == 0:
            continue
        if ended.get("message"):  # the program has said it, and knows most
            return f"exit {ended['exitCode']}: {_short(ended['message'])}"
        if ended.get("reason") == "OOMKilled":
            return f"out of memory{_limit(pod)}"
        return f"exit {ended['exitCode']}"
    return ""


def progress_in(log: str) -> str:
    """The last line of a log that says the step, in the words of the program; '' where there is none."""
    return next((match[0] for line in reversed(log.splitlines()) if (match := STEP.search(line))), "")


def _limit(pod: Thing) -> str:
    limits = [each.get("resources", {}).get("limits", {}).get("memory") for each in pod["spec"]["containers"]]
    return f": the limit is {limits[0]}; give it more, or a smaller batch" if limits and limits[0] else ""


def _short(text: str) -> str:
    return " ".join(text.split())


def utc_now() -> datetime:
    return datetime.now(UTC)
