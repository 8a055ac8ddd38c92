"""A new run on a cluster: its name, what it will be in words, the checks before it, and sending it."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.cluster import overlay
from trainer.cluster.api import Cluster, Object, kubectl
from trainer.cluster.overlay import Rendered
from trainer.errors import ClusterError, ConfigError, note
from trainer.storage import place

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
NAME_LENGTH = 50
"""A label has 63; the operator appends to it for its pods."""
PLACEHOLDER = "gs://my-bucket/"
"""What k8s/site ships: nobody's bucket."""
GPU = "nvidia.com/gpu"
APPLY = ("apply", "--server-side", "--field-manager", "capsnet", "-f", "-")


@dataclass(frozen=True)
class Request:
    """``fields``: of the configuration, by path; None: as the overlay has it."""

    overlay: str
    name: str | None
    image: str | None
    data: str | None
    output: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Submission:
    name: str
    manifest: str
    rendered: Rendered


def new_name(folder: Path, now: time.struct_time) -> str:
    """The overlay's name and the time, as a DNS label."""
    stem = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    stem = stem if stem[:1].isalpha() else f"run-{stem}"
    return f"{stem[:36].rstrip('-')}-{time.strftime('%m%d-%H%M%S', now)}"


def prepare(request: Request, check: Callable[[Mapping[str, str]], None]) -> Submission:
    """Renders a run over its overlay; nothing is sent.

    Args:
        check: gets the settings of the run, and raises ConfigError where they make none.

    Raises:
        ConfigError, StorageRefused: kubectl is missing, or something that was given is wrong.
    """
    folder = overlay.find(request.overlay)
    name = request.name or new_name(folder, time.localtime())
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise ConfigError(
            f"--name {name}: give at most {NAME_LENGTH} of a-z, 0-9 and '-', with a letter first and no '-' last"
        )
    if request.image:
        overlay.image_parts(request.image)
    base = overlay.render(folder)
    changed = changes(request, base, folder.name, name)
    settings = {**base.settings, **changed}
    for key in ("DATA", "OUTPUT"):
        value = settings.get(key, "")
        if value.startswith(PLACEHOLDER):
            raise ConfigError(
                f"{key} is {value}, which is nobody's bucket: set BUCKET in k8s/site/kustomization.yaml, "
                f"or give --{key.lower()}"
            )
        place(value)
    check(settings)
    manifest = overlay.render_run(folder, base, name, request.image, changed)
    return Submission(name, manifest, overlay.parsed(manifest, request.overlay))


def changes(request: Request, base: Rendered, overlay_name: str, name: str) -> dict[str, str]:
    """What the run's settings have other than the overlay's."""
    changed = {}
    if request.data is not None:
        changed["DATA"] = request.data
    output = base.settings.get("OUTPUT", "")
    if request.output is not None:
        changed["OUTPUT"] = request.output
    elif output.rstrip("/").rpartition("/")[2] == overlay_name:
        changed["OUTPUT"] = f"{output.rstrip('/').rpartition('/')[0]}/{name}"
    if request.fields:
        given = [word for path, value in request.fields.items() for word in (f"--{path}", value)]
        changed["OPTIONS"] = " ".join(filter(None, [base.settings.get("OPTIONS", ""), shlex.join(given)]))
    return changed


def described(submission: Submission, cluster: Cluster | None) -> str:
    """What will run, a line for each fact."""
    settings, run = submission.rendered.settings, submission.rendered.run
    output = settings["OUTPUT"]
    where = f", namespace {cluster.namespace} of context {cluster.context}" if cluster else ""
    rows = {
        "recipe": settings["RECIPE"],
        "data": settings.get("DATA") or "that of the recipe",
        "output": output + ("" if output.startswith("gs://") else "   (in the pod, and gone with it)"),
        "options": settings.get("OPTIONS") or "none",
        "image": submission.rendered.image,
    }
    for role, (count, template) in submission.rendered.templates.items():
        limits = template["spec"]["containers"][0].get("resources", {}).get("limits", {})
        gpus = limits.get(GPU, "0")
        devices = "no GPU" if gpus == "0" else f"{gpus} GPU{'s' if gpus != '1' else ''}"
        rows[role] = f"{count} pod{'s' if count != 1 else ''} x {devices}, memory {limits.get('memory', 'unlimited')}"
    return "\n".join([f"{submission.name}   {run['kind']}{where}", *(f"  {key:9}{text}" for key, text in rows.items())])


def check_on_server(submission: Submission, cluster: Cluster) -> None:
    """A server-side dry run of every object, and of every pod template as a pod.

    Raises:
        ConfigError, ClusterError: what the server would refuse. Quotas are noted only: they may be free later.
    """
    kubectl([*APPLY, "--dry-run=server"], submission.manifest, cluster)
    for role, (_, template) in submission.rendered.templates.items():
        pod = as_pod(template, f"{submission.name}-{role}"[:63])
        try:
            kubectl(["create", "--dry-run=server", "-f", "-"], json.dumps(pod), cluster)
        except ClusterError as error:
            if "exceeded quota" not in str(error):
                raise ClusterError(f"pods of {role}: {error}") from None
            note(f"pods of {role} will wait: {error}")


def as_pod(template: Object, name: str) -> Object:
    """A pod of the template, under the account of the namespace: the run's own may not be there yet."""
    spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
    metadata = {**template["metadata"], "name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"restartPolicy": "Never", **spec}}


def send(submission: Submission, cluster: Cluster) -> None:
    """Raises ConfigError or ClusterError, with what the cluster said."""
    kubectl(APPLY, submission.manifest, cluster)
