"""What the launcher asks the cluster of its worker pods, with the rights of its service account (k8s/bases/mpijob)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from trainer.errors import note
from trainer.launch import memory_kills

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TIMEOUT_SECONDS = 10.0
NOT_THERE = "not there"
GONE = ("Failed", "Succeeded")
"""Phases of a pod that has ended for good. The operator makes deleted workers again, and not ones that lie there."""


def make_way(pod: str) -> str:
    """Says in few words how a silent worker stands; deletes one that has ended, so that it is made again."""
    found = _read(pod)
    if isinstance(found, str):
        return found
    if found.status.phase in GONE:
        reason = found.status.reason or found.status.phase
        try:
            _core().delete_namespaced_pod(pod, _namespace(), _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            return f"{reason}; it cannot be deleted to make way for a new one: {_said(error)}"
        except HTTPError as error:
            return f"{reason}; {type(error).__name__}"
        return f"{reason}; deleted, to be made again"
    return waiting_for(found)


def waiting_for(pod: Any) -> str:
    """Why a pod does not run yet, in the cluster's words: the scheduler's, or a container's."""
    for status in pod.status.container_statuses or []:
        if status.state.waiting is not None:
            return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}".rstrip(": ")
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message or ''}".rstrip(": ")
    return f"{pod.status.phase}, its sshd does not answer" if pod.status.phase == "Running" else str(pod.status.phase)


def identities(names: Iterable[str]) -> dict[str, str]:
    """Name and uid of the pods that are there."""
    found = {name: _read(name) for name in names}
    return {name: pod.metadata.uid for name, pod in found.items() if not isinstance(pod, str)}


def taken_away(before: Mapping[str, str]) -> list[str]:
    """Pods that were deleted since: by a preemption, a drained node, a suspension, a person. Not those that failed."""
    now = {name: _read(name) for name in before}
    return [
        name
        for name, pod in now.items()
        if pod == NOT_THERE
        or (not isinstance(pod, str) and (pod.metadata.uid != before[name] or pod.metadata.deletion_timestamp))
    ]


def why_killed(pod: str) -> str:
    """Out of memory or evicted, where the kubelet says so of the pod; else nothing."""
    found = _read(pod)
    if isinstance(found, str):
        return ""
    if found.status.phase == "Failed" and found.status.reason:
        return f"{found.status.reason}: {found.status.message or ''}".rstrip(": ")
    for status in found.status.container_statuses or []:
        for state in (status.state, status.last_state):
            if state is not None and state.terminated is not None and state.terminated.reason == "OOMKilled":
                return memory_kills.sentence(None)
    return ""


def end_job() -> None:
    """Lets the launcher's Job fail with this pod: an MPIJob has no policy that tells exit codes apart.

    Where that is not permitted, Kubernetes starts the launcher again, and the ledger ends it again.
    """
    name = f"{os.environ.get('CAPSNET_NAME', '')}-launcher"
    try:
        batch = client.BatchV1Api(_core().api_client)
        batch.patch_namespaced_job(name, _namespace(), {"spec": {"backoffLimit": 0}}, _request_timeout=TIMEOUT_SECONDS)
    except ApiException as error:
        note(f"the Job {name} goes on trying: {_said(error)}")
    except (ConfigException, HTTPError) as error:
        note(f"the Job {name} goes on trying: {type(error).__name__}")


def _read(pod: str) -> Any:
    """The pod, or a word on why there is none."""
    try:
        return _core().read_namespaced_pod(pod, _namespace(), _request_timeout=TIMEOUT_SECONDS)
    except ApiException as error:
        return NOT_THERE if error.status == 404 else _said(error)
    except ConfigException:
        return "not on a cluster"
    except HTTPError as error:
        return f"the cluster does not answer: {type(error).__name__}"


def _said(error: ApiException) -> str:
    return f"{error.status} {error.reason}"


@functools.cache
def _core() -> client.CoreV1Api:
    config.load_incluster_config()
    return client.CoreV1Api()


def _namespace() -> str:
    return os.environ.get("POD_NAMESPACE") or NAMESPACE.read_text().strip()
