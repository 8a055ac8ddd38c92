"""A namespace of a real cluster, through kubectl, as people use it."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

OVERLAYS = Path(__file__).parents[2] / "k8s" / "overlays"
EMULATOR = "fsouza/fake-gcs-server"
PATIENCE = 300.0  # seconds for what has no bound of its own, on a busy machine
T = TypeVar("T")


def kubectl(*words: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 or not check, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout if done.returncode == 0 else done.stderr


@functools.cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """The objects of a shipped overlay."""
    return [each for each in yaml.safe_load_all(kubectl("kustomize", str(OVERLAYS / overlay))) if each]


def pod_templates(thing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod templates in an object, by a name."""
    name = f"{thing['kind'].lower()}-{thing['metadata']['name']}"
    if thing["kind"] == "MPIJob":
        roles = thing["spec"]["mpiReplicaSpecs"]
        return {f"{name}-{role.lower()}": spec["template"] for role, spec in roles.items()}
    template = thing.get("spec", {}).get("template")
    return {name: template} if template else {}


@dataclass
class Space:
    """A namespace that enforces Pod Security 'restricted'. ``images``: what stands in for the images of manifests."""

    name: str
    images: Mapping[str, str]
    folder: Path
    applied: int = field(default=0)

    def __call__(self, *words: str, stdin: str = "", check: bool = True) -> str:
        return kubectl("--namespace", self.name, *words, stdin=stdin, check=check)

    def get(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *words, "--output", "json"))
        return found

    def pods(self, selector: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("pods", "--selector", selector)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def apply(
        self,
        overlay: str,
        name: str = "",
        values: Mapping[str, Mapping[str, str]] | None = None,
        patches: Mapping[str, list[dict[str, Any]]] | None = None,
        components: tuple[str, ...] = (),
    ) -> None:
        """Applies an overlay, or with components alone ('') these.

        Args:
            name: of the run, where it has one.
            values: other values of its ConfigMaps, as 'run'.
            patches: by kind, JSON patches.
        """
        self.applied += 1
        folder = self.folder / f"{self.applied}-{overlay}"
        folder.mkdir(parents=True)
        (folder / "here").symlink_to(OVERLAYS.parent)
        changes: dict[str, list[dict[str, Any]]] = {}
        if name:
            kind = "MPIJob" if any(each["kind"] == "MPIJob" for each in rendered(overlay)) else "Job"
            changes[kind] = [{"op": "replace", "path": "/metadata/name", "value": name}]
        for each, operations in (patches or {}).items():
            changes.setdefault(each, []).extend(operations)
        kustomization: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.name,
            "resources": [f"here/overlays/{overlay}"] if overlay else [],
            "components": [f"here/components/{component}" for component in components],
            "images": [
                {"name": image, "newName": to.rpartition(":")[0], "newTag": to.rpartition(":")[2]}
                for image, to in self.images.items()
            ],
            "patches": [{"target": {"kind": each}, "patch": json.dumps(what)} for each, what in changes.items()],
        }
        kustomization["configMapGenerator"] = [
            {"name": each, "behavior": "merge", "literals": [f"{key}={value}" for key, value in given.items()]}
            for each, given in (values or {}).items()
        ]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        self("apply", "--server-side", "--kustomize", str(folder))

    def until(self, what: str, look: Callable[[], T | None], within: float = PATIENCE) -> T:
        """What ``look`` finds, as soon as it finds something."""
        deadline = time.monotonic() + within
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:g} s: {what}\n{self.state()}")
            time.sleep(0.5)

    def state(self) -> str:
        """For a person who has to find out why."""
        pods = self.get("pods")["items"]
        logs = [self("logs", pod["metadata"]["name"], "--all-containers", "--tail=15", check=False) for pod in pods]
        return "\n".join([self("get", "pods,jobs,events", check=False), *logs])

    def condition(self, kind: str, name: str) -> str:
        """Of a Job or MPIJob: 'Complete', 'Succeeded', 'Failed' or ''."""
        status = self.get(kind, name).get("status", {})
        held = {
            each["type"]
            for each in status.get("conditions", [])
            if each["status"] == "True" and each.get("reason") != "MPIJobEvicted"  # 'Failed', and goes on
        }
        return next((each for each in ("Complete", "Succeeded", "Failed") if each in held), "")

    def ended(self, kind: str, name: str, within: float = PATIENCE) -> str:
        return self.until(f"{kind} {name} ends", lambda: self.condition(kind, name), within)

    def log(self, selector: str) -> str:
        """What all pods of a selector said, in the order in which they were made."""
        return "".join(self("logs", pod["metadata"]["name"], check=False) for pod in self.pods(selector))

    def words(self, selector: str) -> list[str]:
        """The termination messages of ended pods."""
        ends = [
            status["state"]["terminated"].get("message", "").strip()
            for pod in self.pods(selector)
            for status in pod["status"].get("containerStatuses", [])
            if "terminated" in status["state"]
        ]
        return [each for each in ends if each]

    @contextlib.contextmanager
    def forwarded(self, what: str, port: int) -> Iterator[str]:
        """``http://127.0.0.1:PORT`` of a service or pod."""
        command = ["kubectl", "--namespace", self.name, "port-forward", what, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert match, f"kubectl port-forward {what}: {line}"
                yield f"http://127.0.0.1:{match[1]}"
            finally:
                process.kill()
