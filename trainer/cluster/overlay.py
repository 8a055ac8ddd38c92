"""An overlay as a new run: a temporary kustomization over it, so that nothing is written down twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from trainer.errors import ConfigError

CHECKOUT = Path(__file__).parents[2] / "k8s" / "overlays"
INSTALLED = Path(sys.prefix) / "share" / "capsnet" / "k8s" / "overlays"
SAID = 400
"""Characters of what kubectl says: it may repeat whole files."""
KUBECTL = "https://kubernetes.io/docs/tasks/tools"
NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
"""Of a run: a DNS label, with room for what Kubernetes appends to pods."""

Thing = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What an overlay gives. ``run``: the Job or MPIJob; ``values``: the ConfigMap that says what it is."""

    things: tuple[Thing, ...]
    run: Thing
    values: dict[str, str]


def shipped() -> Path:
    """The folder of overlays that came with the package."""
    return CHECKOUT if CHECKOUT.is_dir() else INSTALLED


def find(overlay: str) -> Path:
    """A shipped overlay, or a folder with a kustomization. Raises ConfigError where it is neither."""
    for path in (shipped() / overlay, Path(overlay)):
        if (path / "kustomization.yaml").is_file():
            return path.resolve()
    names = ", ".join(sorted(path.name for path in shipped().iterdir())) if shipped().is_dir() else "none"
    raise ConfigError(f"no overlay {overlay}: give the folder of a kustomization, or one of {names}")


def render(path: Path, changes: Thing | None = None) -> Rendered:
    """The objects of an overlay, with ``changes`` laid over it: further fields of a kustomization.

    Raises:
        ConfigError: kubectl is missing or refuses it, or it is no training run.
    """
    if shutil.which("kubectl") is None:
        raise ConfigError(f"kubectl is missing, and renders overlays; see {KUBECTL}")
    with tempfile.TemporaryDirectory(prefix="capsnet-") as folder:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(path, Path(folder).resolve())],
            **(changes or {}),
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.partition("err=")[2].split()).strip('"<> ') or done.stderr.strip()
        raise ConfigError(f"{path}: kubectl cannot render it: {said[:SAID]}")
    things = tuple(each for each in yaml.safe_load_all(done.stdout) if each)
    runs = [each for each in things if each["kind"] in ("Job", "MPIJob")]
    values = [each["data"] for each in things if each["kind"] == "ConfigMap" and "RECIPE" in each.get("data", {})]
    if len(runs) != 1 or len(values) != 1:
        raise ConfigError(f"{path}: not one training run; apply it with 'kubectl apply -k'")
    return Rendered(things, runs[0], {key: value or "" for key, value in values[0].items()})


def changes(before: Rendered, name: str, image: str | None, values: dict[str, str], namespace: str) -> dict[str, Any]:
    """The fields of a kustomization that make another run of an overlay."""
    laid: Thing = {
        "namespace": namespace,
        "patches": [
            {
                "target": {"kind": before.run["kind"], "name": before.run["metadata"]["name"]},
                "patch": json.dumps([{"op": "replace", "path": "/metadata/name", "value": name}]),
            }
        ],
        "configMapGenerator": [
            {"name": "run", "behavior": "merge", "literals": [f"{key}={value}" for key, value in values.items()]}
        ],
    }
    if image:
        repository, tag = split_image(image)
        used = images_of(before.run)
        laid["images"] = [
            {"name": split_image(each)[0], "newName": repository, **({"newTag": tag} if tag else {})} for each in used
        ]
    return laid


def images_of(run: Thing) -> list[str]:
    if run["kind"] == "MPIJob":
        templates = [each["template"] for each in run["spec"]["mpiReplicaSpecs"].values()]
    else:
        templates = [run["spec"]["template"]]
    return sorted({each["image"] for template in templates for each in template["spec"]["containers"]})


def split_image(image: str) -> tuple[str, str]:
    """(repository, tag); a port of a registry is no tag."""
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "")


def check_name(name: str) -> str:
    """Raises ConfigError for what cannot name a run."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: give up to 52 letters a-z, digits and '-', the first a letter")
    return name


def apply(things: Sequence[Thing], context: str, *, dry_run: bool) -> str:
    """Server-side; what kubectl said. Raises ConfigError where the server refuses."""
    command = ["kubectl", "--context", context, "apply", "--server-side", "--filename", "-"]
    command += ["--dry-run=server"] if dry_run else []
    done = subprocess.run(command, input=yaml.safe_dump_all(things), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        if 'no matches for kind "MPIJob"' in done.stderr:
            said = ["the cluster has no MPIJob: install the MPI Operator, see docs/kubernetes.md"]
        raise ConfigError(f"kubectl apply: {said[0] if said else 'refused'}")
    return done.stdout
