"""A cluster from outside: objects as plain dictionaries, and its refusals in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from trainer.errors import CapsnetError, ConfigError

MPI_GROUP, MPI_VERSION, MPI_PLURAL = "kubeflow.org", "v2beta1", "mpijobs"
RUNS = "app.kubernetes.io/name=capsnet,app.kubernetes.io/component=train"
"""Label that every run has, however it was applied."""
TIMEOUT = (5.0, 30.0)

Thing = dict[str, Any]


class ClusterError(CapsnetError):
    """The cluster could not be reached, or said no."""


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster of a context."""

    api: client.ApiClient
    namespace: str
    context: str

    def runs(self) -> list[Thing]:
        """Jobs and MPIJobs that train, the oldest first."""
        jobs = self._items(client.BatchV1Api(self.api).list_namespaced_job, self.namespace, label_selector=RUNS)
        custom = client.CustomObjectsApi(self.api).list_namespaced_custom_object
        try:
            place = (MPI_GROUP, MPI_VERSION, self.namespace, MPI_PLURAL)
            mpi = self._asked(custom, *place, label_selector=RUNS)["items"]
        except NotThere:  # no MPI Operator
            mpi = []
        found = [{**each, "kind": kind} for kind, items in (("Job", jobs), ("MPIJob", mpi)) for each in items]
        return sorted(found, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))

    def pods(self, run: Thing) -> list[Thing]:
        """Of a run, the oldest first."""
        label = "training.kubeflow.org/job-name" if run["kind"] == "MPIJob" else "batch.kubernetes.io/job-name"
        selector = f"{label}={run['metadata']['name']}"
        found = self._items(client.CoreV1Api(self.api).list_namespaced_pod, self.namespace, label_selector=selector)
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def warnings(self, name: str) -> list[str]:
        """What was only written to events about an object of that name, the newest last."""
        selector = f"involvedObject.name={name},type=Warning"
        events = self._items(client.CoreV1Api(self.api).list_namespaced_event, self.namespace, field_selector=selector)
        return [f"{event['reason']}: {event['message']}" for event in sorted(events, key=_when)]

    def config_map(self, run: Thing) -> dict[str, str]:
        """What the run is: the ConfigMap that its first container takes its environment from."""
        name = config_map_of(run)
        found = self._asked(client.CoreV1Api(self.api).read_namespaced_config_map, name, self.namespace)
        return dict(found.get("data") or {})

    def log(self, pod: str, **options: Any) -> str:
        """Of a pod's only container; '' where there is none yet."""
        read = client.CoreV1Api(self.api).read_namespaced_pod_log
        try:
            answer = self._said(lambda: read(pod, self.namespace, _preload_content=False, **options))
        except (ClusterError, NotThere):
            return ""
        return str(answer.data.decode(errors="replace"))

    def follow(self, pod: str) -> Iterator[str]:
        """The lines of a pod's log as they come, with times; ends with the container."""
        read = client.CoreV1Api(self.api).read_namespaced_pod_log
        try:
            answer: Any = read(pod, self.namespace, follow=True, timestamps=True, _preload_content=False)
            rest = b""
            for part in answer.stream():
                *lines, rest = (rest + part).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
        except (ApiException, HTTPError):  # it waits to be started, or is gone: the caller looks again
            return

    def delete(self, run: Thing) -> None:
        name, policy = run["metadata"]["name"], "Background"
        if run["kind"] == "MPIJob":
            remove = client.CustomObjectsApi(self.api).delete_namespaced_custom_object
            place = (MPI_GROUP, MPI_VERSION, self.namespace, MPI_PLURAL)
            self._said(lambda: remove(*place, name, propagation_policy=policy))
        else:
            batch = client.BatchV1Api(self.api)
            self._said(lambda: batch.delete_namespaced_job(name, self.namespace, propagation_policy=policy))

    def delete_config_map(self, name: str) -> None:
        self._said(lambda: client.CoreV1Api(self.api).delete_namespaced_config_map(name, self.namespace))

    def _items(self, call: Callable[..., Any], *words: Any, **options: Any) -> list[Thing]:
        items: list[Thing] = self._asked(call, *words, **options).get("items", [])
        return items

    def _asked(self, call: Callable[..., Any], *words: Any, **options: Any) -> Thing:
        answer = self._said(lambda: call(*words, _preload_content=False, _request_timeout=TIMEOUT, **options))
        found: Thing = json.loads(answer.data)
        return found

    def _said(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ApiException as error:
            if error.status == 404:
                raise NotThere(_message(error)) from None
            raise ClusterError(f"the cluster of context {self.context} says: {_message(error)}") from None
        except HTTPError as error:
            where = self.api.configuration.host
            raise ClusterError(f"{where} (context {self.context}) does not answer: {type(error).__name__}") from None


class NotThere(CapsnetError):  # an answer
    """There is no such object, or no such kind of object."""


def connect(context: str | None, namespace: str | None) -> Cluster:
    """The cluster of a context of the kubeconfig, or of the current one.

    Raises:
        ConfigError: there is no such context, or no kubeconfig.
    """
    try:
        contexts, active = config.list_kube_config_contexts()
        chosen = next(each for each in contexts if each["name"] == context) if context else active
        api = config.new_client_from_config(context=chosen["name"])
    except StopIteration:
        names = ", ".join(each["name"] for each in contexts)
        raise ConfigError(f"no context {context} in the kubeconfig; there are {names}") from None
    except (ConfigException, OSError) as error:
        raise ConfigError(f"no cluster: {' '.join(str(error).split())}; set KUBECONFIG") from None
    api.configuration.retries = False  # what does not answer is told at once
    api.rest_client = type(api.rest_client)(api.configuration)
    return Cluster(api, namespace or chosen["context"].get("namespace") or "default", chosen["name"])


def find(runs: list[Thing], name: str, cluster: Cluster) -> Thing:
    """The run of a name. Raises ConfigError where there is none, or two."""
    found = [run for run in runs if run["metadata"]["name"] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name}: a Job and an MPIJob have that name; delete one with kubectl")
    names = ", ".join(run["metadata"]["name"] for run in runs[-5:]) or "none"
    raise ConfigError(f"no run {name} in namespace {cluster.namespace} of context {cluster.context}; there is {names}")


def template_of(run: Thing) -> Thing:
    """The template of the pod that knows what the run is."""
    template: Thing
    if run["kind"] == "MPIJob":
        template = run["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]
    else:
        template = run["spec"]["template"]
    return template


def config_map_of(run: Thing) -> str:
    sources = template_of(run)["spec"]["containers"][0].get("envFrom", [])
    return next((str(each["configMapRef"]["name"]) for each in sources if "configMapRef" in each), "")


def _when(event: Thing) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
