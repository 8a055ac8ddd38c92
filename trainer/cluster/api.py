"""A connection to one namespace of a cluster, and what it refuses in one line each."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from trainer.errors import ClusterError, ConfigError

TIMEOUT_SECONDS = 15.0
KUBECTL_SECONDS = 60.0
GROUP, VERSION, MPIJOBS = "kubeflow.org", "v2beta1", "mpijobs"
NO_KUBECTL = "kubectl is not on the PATH, and renders the manifests: see https://kubernetes.io/docs/tasks/tools"
_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)

Object = dict[str, Any]
"""As the API gives it, in JSON."""


class NoClusterError(ConfigError):
    """No kubeconfig says where a cluster is."""


@dataclass(frozen=True)
class Cluster:
    """``context``: of the kubeconfig, empty within a pod."""

    connection: client.ApiClient
    context: str
    namespace: str

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.connection)

    @property
    def batch(self) -> Any:
        return client.BatchV1Api(self.connection)

    @property
    def custom(self) -> Any:
        return client.CustomObjectsApi(self.connection)

    def objects(self, kind: str, labels: str = "") -> list[Object]:
        """All jobs, mpijobs, pods or events of the namespace. Raises ClusterError, ConfigError."""
        given = {"label_selector": labels, "_preload_content": False, "_request_timeout": TIMEOUT_SECONDS}
        with asked():
            if kind == "mpijobs":
                return self._mpijobs(given)
            ask = {
                "jobs": self.batch.list_namespaced_job,
                "pods": self.core.list_namespaced_pod,
                "events": self.core.list_namespaced_event,
            }[kind]
            found: list[Object] = json.loads(ask(self.namespace, **given).data)["items"]
        return found

    def _mpijobs(self, given: dict[str, Any]) -> list[Object]:
        """None where the cluster does not know the kind."""
        try:
            answer = self.custom.list_namespaced_custom_object(GROUP, VERSION, self.namespace, MPIJOBS, **given)
        except ApiException as error:
            if error.status == 404 or (error.status == 403 and not self._knows_mpijobs()):
                return []
            raise
        found: list[Object] = json.loads(answer.data)["items"]
        return found

    def _knows_mpijobs(self) -> bool:
        """Whether the kind is there at all: who has no right to it is told 'forbidden' in either case."""
        try:
            self.custom.get_api_resources(GROUP, VERSION, _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            return bool(error.status != 404)
        return True

    def check_namespace(self) -> None:
        """Raises ConfigError where the namespace is not there, as far as this user may know; ClusterError."""
        with asked(), contextlib.suppress(ApiException):
            try:
                self.core.read_namespace(self.namespace, _request_timeout=TIMEOUT_SECONDS)
            except ApiException as error:
                if error.status == 404:
                    raise no_namespace(self.namespace) from None
                raise


def connect(context: str | None, namespace: str | None) -> Cluster:
    """The cluster of a context, by default the current one, and its namespace.

    Raises:
        NoClusterError: no kubeconfig.
        ConfigError: no such context.
    """
    settings = client.Configuration()
    settings.retries = Retry(connect=1, read=1, redirect=0)
    try:
        contexts, current = config.list_kube_config_contexts()
        names = {entry["name"]: entry for entry in contexts}
        chosen = names.get(context) if context else current
        if chosen is None:
            raise ConfigError(f"--context {context}: not in the kubeconfig, which has {', '.join(sorted(names))}")
        config.load_kube_config(context=chosen["name"], client_configuration=settings)
    except (ConfigException, yaml.YAMLError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise NoClusterError(
            f"no cluster: {said}; set KUBECONFIG, or make ~/.kube/config (on GKE: gcloud container clusters "
            "get-credentials CLUSTER)"
        ) from None
    place = namespace or chosen["context"].get("namespace") or "default"
    return Cluster(client.ApiClient(settings), chosen["name"], place)


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """What the API refuses, or its silence, as an error for a person."""
    try:
        yield
    except ApiException as error:
        raise refusal(_message(error)) from None
    except HTTPError as error:
        raise _silent(str(getattr(error, "reason", None) or error)) from None


def no_namespace(name: str) -> ConfigError:
    return ConfigError(f"there is no namespace {name}: give another --namespace, or 'kubectl create namespace {name}'")


def refusal(message: str) -> ConfigError | ClusterError:
    """The error for what the API, or kubectl, said."""
    found = _FORBIDDEN.search(message)
    if found:
        resource = ".".join(filter(None, (found["resource"], found["group"])))
        where = f"in namespace {found['namespace']}" if found["namespace"] else "in the cluster"
        return ConfigError(
            f"permission denied: {found['user']} may not {found['verb']} {resource} {where}; "
            "ask for a Role with that verb, or take another --context or --namespace"
        )
    missing = re.search(r'namespaces "([^"]+)" not found', message)
    if missing:
        return no_namespace(missing[1])
    kind = re.search(r'no matches for kind "(\w+)" in version "([^"]+)"', message)
    if kind:
        operator = "; install the MPI Operator, or take an overlay of one pod" if kind[1] == "MPIJob" else ""
        return ConfigError(f"the cluster does not know the kind {kind[1]} ({kind[2]}){operator}")
    if re.search(r"connection (to the server )?.*refused|Unable to connect|no such host|i/o timeout", message):
        return _silent(message)
    if "Unauthorized" in message or "must be logged in" in message:
        return ConfigError("the cluster does not accept the credentials of the kubeconfig; log in again")
    return ClusterError(f"the cluster refused: {message}")


def _silent(reason: str) -> ClusterError:
    short = re.sub(r"^.*?(?=Failed to|\[Errno|The connection|dial tcp)", "", reason)
    line = f"the cluster does not answer ({short[:160]}); is it up, and KUBECONFIG or --context right?"
    return ClusterError(line, unreachable=True)


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def kubectl(arguments: Sequence[str], manifest: str = "", cluster: Cluster | None = None) -> str:
    """What kubectl prints. Raises ConfigError or ClusterError with the last line that it complains with."""
    where = ["--context", cluster.context, "--namespace", cluster.namespace] if cluster else []
    try:
        done = subprocess.run(
            ["kubectl", *where, *arguments], input=manifest, capture_output=True, text=True, timeout=KUBECTL_SECONDS
        )
    except FileNotFoundError:
        raise ConfigError(NO_KUBECTL) from None
    except subprocess.TimeoutExpired:
        raise _silent(f"kubectl {arguments[0]} took more than {KUBECTL_SECONDS:.0f} s") from None
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if not line.startswith("Warning:")]
        raise refusal(" ".join(dict.fromkeys(said)) if said else f"kubectl {arguments[0]} returned {done.returncode}")
    return done.stdout
