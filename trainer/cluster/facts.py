"""What the cluster says of a run, as frozen values made from the API's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainer.cluster.api import GROUP, Object

SELECTOR = "app.kubernetes.io/name=capsnet"
COMPONENT, TRAIN = "app.kubernetes.io/component", "train"
QUEUE = "kueue.x-k8s.io/queue-name"
EVICTED = "MPIJobEvicted"
"""The operator calls a job failed one of whose workers was evicted, and goes on with it."""
JOB_OF = {"Job": "batch.kubernetes.io/job-name", "MPIJob": "training.kubeflow.org/job-name"}
ROLE, INDEX = "training.kubeflow.org/job-role", "training.kubeflow.org/replica-index"


@dataclass(frozen=True)
class Ended:
    """How a container ended; ``message``: what it left in its termination log."""

    code: int
    reason: str
    message: str
    time: float


@dataclass(frozen=True)
class Pod:
    """``waiting``: reason and message of the container; ``unscheduled``: the scheduler's; ``disrupted``: by whom the
    pod was taken away; ``node``: empty until it is placed; ``memory``: limit, as written."""

    name: str
    uid: str
    role: str
    phase: str
    created: float
    node: str = ""
    reason: str = ""
    message: str = ""
    deleted: bool = False
    unscheduled: str = ""
    disrupted: str = ""
    waiting: tuple[str, str] | None = None
    ended: Ended | None = None
    image: str = ""
    memory: str = ""

    @property
    def main(self) -> bool:
        """It is the one that decides how the run ends, and prints what happens."""
        return not self.role.startswith("worker")

    @property
    def over(self) -> bool:
        return self.phase in ("Failed", "Succeeded")


@dataclass(frozen=True)
class Event:
    """A warning about an object of the run."""

    time: float
    kind: str
    name: str
    reason: str
    message: str


@dataclass(frozen=True)
class Run:
    """``conditions``: reason and message of those that are true, by type; ``pods``: the oldest first."""

    name: str
    kind: str
    created: float
    finished: float
    suspended: bool
    queue: str
    settings_name: str
    conditions: Mapping[str, tuple[str, str]]
    workers: int
    pods: tuple[Pod, ...] = ()
    events: tuple[Event, ...] = ()


def is_run(entry: Object) -> bool:
    """A training Job or MPIJob, and not the Job that the operator makes for a launcher."""
    owners = entry["metadata"].get("ownerReferences", [])
    return entry["metadata"].get("labels", {}).get(COMPONENT) == TRAIN and not any(
        owner["kind"] == "MPIJob" for owner in owners
    )


def run_of(entry: Object, pods: Sequence[Object], events: Sequence[Object]) -> Run:
    """Of a Job or MPIJob, and all pods and events of its namespace."""
    kind = "MPIJob" if GROUP in entry.get("apiVersion", "") else "Job"
    name, spec, status = entry["metadata"]["name"], entry["spec"], entry.get("status", {})
    mine = [pod_of(pod) for pod in pods_of(name, kind, pods)]
    replicas = spec.get("mpiReplicaSpecs", {})
    template = replicas["Launcher"]["template"] if kind == "MPIJob" else spec["template"]
    sources = template["spec"]["containers"][0].get("envFrom", [])
    ends = [c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed", "Succeeded")]
    objects = {(kind, name), ("Job", f"{name}-launcher")} | {("Pod", pod.name) for pod in mine}
    return Run(
        name,
        kind,
        seconds(entry["metadata"]["creationTimestamp"]),
        max((seconds(c.get("lastTransitionTime")) for c in ends if c["status"] == "True"), default=0.0),
        bool(spec.get("suspend") or spec.get("runPolicy", {}).get("suspend")),
        entry["metadata"].get("labels", {}).get(QUEUE, ""),
        next((s["configMapRef"]["name"] for s in sources if "configMapRef" in s), ""),
        {
            c["type"]: (c.get("reason", ""), c.get("message", ""))
            for c in status.get("conditions", [])
            if c["status"] == "True" and c.get("reason") != EVICTED
        },
        int(replicas.get("Worker", {}).get("replicas", 0)),
        tuple(sorted(mine, key=lambda pod: (pod.created, pod.name))),
        tuple(
            sorted((event_of(e) for e in events if e["type"] == "Warning" and _about(e, objects)), key=lambda e: e.time)
        ),
    )


def pods_of(name: str, kind: str, pods: Sequence[Object]) -> list[Object]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(JOB_OF[kind]) == name]


def _about(event: Object, objects: set[tuple[str, str]]) -> bool:
    about = event["involvedObject"]
    return (about.get("kind", ""), about.get("name", "")) in objects


def event_of(entry: Object) -> Event:
    about = entry["involvedObject"]
    time = entry.get("lastTimestamp") or entry.get("eventTime") or entry["metadata"]["creationTimestamp"]
    message = " ".join(entry.get("message", "").split())
    return Event(seconds(time), about.get("kind", ""), about.get("name", ""), entry.get("reason", ""), message)


def pod_of(entry: Object) -> Pod:
    metadata, spec, status = entry["metadata"], entry["spec"], entry.get("status", {})
    container = spec["containers"][0]
    found = {c["name"]: c for c in status.get("containerStatuses", [])}.get(container["name"], {})
    state = found.get("state", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    placed, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    waiting = state.get("waiting")
    return Pod(
        metadata["name"],
        metadata["uid"],
        _role(metadata.get("labels", {})),
        status.get("phase", ""),
        seconds(metadata["creationTimestamp"]),
        spec.get("nodeName", ""),
        status.get("reason", ""),
        status.get("message", ""),
        "deletionTimestamp" in metadata,
        placed.get("message", "") if placed.get("status") == "False" else "",
        f"{disrupted.get('reason')}: {disrupted.get('message', '')}" if disrupted.get("status") == "True" else "",
        (waiting.get("reason", ""), waiting.get("message", "")) if waiting else None,
        _ended(state.get("terminated") or found.get("lastState", {}).get("terminated")),
        container["image"],
        container.get("resources", {}).get("limits", {}).get("memory", ""),
    )


def _role(labels: Mapping[str, str]) -> str:
    role = labels.get(ROLE, TRAIN)
    return f"{role}-{labels[INDEX]}" if role == "worker" and INDEX in labels else role


def _ended(terminated: Any) -> Ended | None:
    if not terminated:
        return None
    message = " ".join(terminated.get("message", "").split())
    return Ended(
        int(terminated["exitCode"]), terminated.get("reason", ""), message, seconds(terminated.get("finishedAt"))
    )


def seconds(time: str | None) -> float:
    """Since the epoch; 0 for a time that is not given."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else 0.0
