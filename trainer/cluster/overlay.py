"""Overlays of k8s/, a checkout's or an installed wheel's, and a run's own kustomization over one of them."""

from __future__ import annotations

import json
import os
import re
import site
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainer.cluster.api import Object, kubectl
from trainer.config import nearest
from trainer.errors import ConfigError

HOMES = (
    Path(__file__).parents[2] / "k8s",
    *(Path(root) / "share" / "capsnet" / "k8s" for root in (sys.prefix, site.getuserbase())),
)
"""Of the manifests: in a checkout, and where a wheel puts them, for an environment or for a user."""
INSTANCE = "app.kubernetes.io/instance"
COMPONENT, TRAIN = "app.kubernetes.io/component", "train"
KINDS = ("Job", "MPIJob")
SETTINGS = "run"
"""Name of the ConfigMap that says what a run is."""


@dataclass(frozen=True)
class Rendered:
    """All objects of an overlay; ``run``: the Job or MPIJob; ``settings``: RECIPE, DATA, OUTPUT and OPTIONS."""

    objects: list[Object]
    run: Object
    settings: dict[str, str]

    @property
    def templates(self) -> dict[str, tuple[int, Object]]:
        """Role of the pods, how many there are, and their template."""
        spec = self.run["spec"]
        if self.run["kind"] == "Job":
            return {TRAIN: (spec.get("parallelism", 1), spec["template"])}
        return {
            role.lower(): (part.get("replicas", 1), part["template"]) for role, part in spec["mpiReplicaSpecs"].items()
        }

    @property
    def image(self) -> str:
        _, template = next(iter(self.templates.values()))
        return str(template["spec"]["containers"][0]["image"])


def find(name: str) -> Path:
    """The folder of a shipped overlay, or the one that the path names. Raises ConfigError."""
    if os.sep in name or Path(name, "kustomization.yaml").is_file():
        if not Path(name, "kustomization.yaml").is_file():
            raise ConfigError(f"{name}: no kustomization.yaml there")
        return Path(name).resolve()
    home = next((each for each in HOMES if (each / "overlays").is_dir()), None)
    if home is None:
        places = ", ".join(map(str, HOMES))
        raise ConfigError(f"no overlays in {places}; give the path of one (k8s/overlays of a checkout)")
    known = sorted(path.parent.name for path in home.glob("overlays/*/kustomization.yaml"))
    if name not in known:
        raise ConfigError(f"no overlay {name}{nearest(name, known)}; there are {', '.join(known)}, or give a path")
    return (home / "overlays" / name).resolve()


def render(folder: Path) -> Rendered:
    """Raises ConfigError where kubectl is missing, or the overlay holds no run."""
    return parsed(kubectl(["kustomize", str(folder)]), str(folder))


def parsed(manifest: str, source: str) -> Rendered:
    """The objects of a rendered overlay. Raises ConfigError where they are not those of one run."""
    objects = [entry for entry in yaml.safe_load_all(manifest) if entry]
    runs = [
        entry
        for entry in objects
        if entry["kind"] in KINDS and entry["metadata"].get("labels", {}).get(COMPONENT) == TRAIN
    ]
    if len(runs) != 1:
        raise ConfigError(f"{source}: {len(runs)} training jobs; 'capsnet submit' takes an overlay with one")
    of_run = re.compile(rf"{SETTINGS}-[a-z0-9]{{10}}|{SETTINGS}")
    settings = [entry for entry in objects if entry["kind"] == "ConfigMap" and of_run.fullmatch(_name(entry))]
    if len(settings) != 1:
        raise ConfigError(f"{source}: {len(settings)} ConfigMaps '{SETTINGS}'; a run is described by one")
    return Rendered(objects, runs[0], settings[0]["data"])


def _name(entry: Object) -> str:
    return str(entry["metadata"]["name"])


def render_run(folder: Path, base: Rendered, name: str, image: str | None, changed: Mapping[str, str]) -> str:
    """The overlay as YAML, with a run's name, image and settings."""
    with tempfile.TemporaryDirectory(prefix="capsnet-") as made:
        place = Path(made).resolve()
        content = kustomization(os.path.relpath(folder, place), base, name, image, changed)
        (place / "kustomization.yaml").write_text(json.dumps(content, indent=2))
        return kubectl(["kustomize", str(place)])


def kustomization(resource: str, base: Rendered, name: str, image: str | None, changed: Mapping[str, str]) -> Object:
    """A kustomization over ``resource``: nothing of the overlay is repeated in it.

    The ConfigMap holds the run's name as well, so that two runs never share one: its name is a hash of the content.
    """
    run = base.run
    label = INSTANCE.replace("/", "~1")
    bodies = (
        ["/spec/template"]
        if run["kind"] == "Job"
        else [f"/spec/mpiReplicaSpecs/{role}/template" for role in run["spec"]["mpiReplicaSpecs"]]
    )
    patch: list[Object] = [{"op": "replace", "path": "/metadata/name", "value": name}]
    patch += [{"op": "add", "path": f"{body}/metadata/labels/{label}", "value": name} for body in ["", *bodies]]
    content: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [resource],
        "configMapGenerator": [
            {
                "name": SETTINGS,
                "behavior": "merge",
                "options": {"labels": {INSTANCE: name}},
                "literals": [f"{key}={value}" for key, value in {**changed, "INSTANCE": name}.items()],
            }
        ],
        "patches": [{"target": {"kind": run["kind"], "name": _name(run)}, "patch": json.dumps(patch)}],
    }
    if image:
        content["images"] = [image_entry(base.image, image)]
    return content


def image_entry(old: str, new: str) -> Object:
    """Kustomize's entry that puts one image for another."""
    repository, tag, digest = image_parts(new)
    entry = {"name": image_parts(old)[0], "newName": repository}
    if digest:
        return {**entry, "digest": digest}
    return {**entry, "newTag": tag or "latest"}


def image_parts(reference: str) -> tuple[str, str, str]:
    """Repository, tag and digest; the latter two may be empty. Raises ConfigError for what is no reference."""
    found = re.fullmatch(r"([a-z0-9][\w.\-/]*(?::\d+/[\w.\-/]+)?)(?::([\w.\-]+))?(?:@(\w+:[0-9a-f]+))?", reference)
    if not found:
        raise ConfigError(f"--image {reference}: not an image; give REPOSITORY:TAG, or REPOSITORY@sha256:...")
    return found[1], found[2] or "", found[3] or ""
