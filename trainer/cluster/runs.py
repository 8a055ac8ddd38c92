"""The runs of a namespace, read from the cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from trainer.cluster import facts
from trainer.cluster.api import TIMEOUT_SECONDS, Cluster, asked
from trainer.cluster.facts import Pod, Run
from trainer.config import StorageConfig
from trainer.errors import CapsnetError, ConfigError
from trainer.output import newest
from trainer.output.ledger import Attempt, End, Ledger
from trainer.storage import is_cloud

STEP = re.compile(r"^step (\d+)/(\d+)\b")
AGAIN = re.compile(r"^capsnet: (?:attempt \d+|trying again in .*)$")
"""What the launcher says between two attempts."""
TAIL_LINES = 40
IMPATIENT = StorageConfig(deadline_seconds=5, stall_seconds=5, first_wait_seconds=0.5)
"""For what is told beside the rest: the bucket of a cluster may be out of reach from here."""


@dataclass(frozen=True)
class Settings:
    """What the ConfigMap of a run says; empty where it is gone."""

    recipe: str = ""
    data: str = ""
    output: str = ""
    options: str = ""


def all_runs(cluster: Cluster) -> list[Run]:
    """Of the namespace, the newest last. Raises ClusterError, ConfigError."""
    entries = [e for kind in ("jobs", "mpijobs") for e in cluster.objects(kind, facts.SELECTOR) if facts.is_run(e)]
    if not entries:
        return []
    pods, events = cluster.objects("pods"), cluster.objects("events")
    return sorted((facts.run_of(entry, pods, events) for entry in entries), key=lambda run: (run.created, run.name))


def one(cluster: Cluster, name: str) -> Run:
    """The run NAME, job/NAME or mpijob/NAME. Raises ConfigError where there is none, or are two."""
    kind, _, bare = name.rpartition("/")
    runs = all_runs(cluster)
    found = [run for run in runs if run.name == bare and (not kind or run.kind.lower() == kind.lower())]
    if len(found) > 1:
        raise ConfigError(f"a Job and an MPIJob are called {bare}: say job/{bare} or mpijob/{bare}")
    if not found:
        cluster.check_namespace()
        names = ", ".join(run.name for run in runs[-8:])
        there = f"there are {names}" if names else "there are no runs"
        raise ConfigError(f"no run {name} in namespace {cluster.namespace}; {there}")
    return found[0]


def settings(cluster: Cluster, run: Run) -> Settings:
    """Raises ClusterError, ConfigError."""
    with asked():
        data = _config_map(cluster, run.settings_name) if run.settings_name else {}
    return Settings(*(data.get(key, "") for key in ("RECIPE", "DATA", "OUTPUT", "OPTIONS")))


def _config_map(cluster: Cluster, name: str) -> dict[str, Any]:
    try:
        answer = cluster.core.read_namespaced_config_map(
            name, cluster.namespace, _preload_content=False, _request_timeout=TIMEOUT_SECONDS
        )
    except ApiException as error:
        if error.status == 404:
            return {}
        raise
    found: dict[str, Any] = json.loads(answer.data).get("data", {})
    return found


def log_lines(
    cluster: Cluster, pod: Pod, *, tail: int | None = None, since: float | None = None
) -> list[tuple[str, str]]:
    """Time, as the kubelet writes it, and text of the lines of a pod; none while it has no log.

    ``since``: of the last so many seconds. Raises ClusterError, ConfigError.
    """
    given: dict[str, Any] = {"timestamps": True, "_preload_content": False, "_request_timeout": TIMEOUT_SECONDS}
    if tail is not None:
        given["tail_lines"] = tail
    if since is not None:
        given["since_seconds"] = max(1, round(since))
    with asked():
        try:
            answer = cluster.core.read_namespaced_pod_log(pod.name, cluster.namespace, **given)
        except ApiException as error:
            if error.status in (400, 404, 500, 502):  # not started, gone, or its node does not answer
                return []
            raise
    lines = answer.data.decode(errors="replace").splitlines()
    return [(time, text) for time, _, text in (line.partition(" ") for line in lines)]


def newest_main(run: Run) -> Pod | None:
    """The pod that prints what happens."""
    mains = [pod for pod in run.pods if pod.main]
    return mains[-1] if mains else None


def progress(lines: Sequence[str]) -> str:
    """The last line with a step."""
    return next((line for line in reversed(lines) if STEP.match(line)), "")


def mark(lines: Sequence[str]) -> str:
    """The last line that tells a step, or that an attempt begins after another."""
    return next((line for line in reversed(lines) if STEP.match(line) or AGAIN.match(line)), "")


def ended_before(cluster: Cluster, run: Run) -> End | None:
    """How the attempt before ended, from the ledger; None where that cannot be read from here."""
    output = settings(cluster, run).output
    if not is_cloud(output):
        return None
    try:
        return Ledger(output, IMPATIENT).before()
    except (CapsnetError, OSError):
        return None


@dataclass(frozen=True)
class History:
    """What lies at the output of a run: attempts at it, and the step of its newest checkpoint, -1 for none."""

    attempts: Sequence[Attempt] = ()
    step: int = -1


def history(output: str) -> History:
    """Of nothing where it cannot be read from here."""
    if not is_cloud(output):
        return History()
    try:
        attempts = Ledger(output, IMPATIENT).attempts()
        return History(attempts, newest.step(output)) if attempts else History()
    except (CapsnetError, OSError):
        return History()
