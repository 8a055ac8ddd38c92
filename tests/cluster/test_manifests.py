"""What the server says of every manifest, and of every pod that would come of it."""

from __future__ import annotations

import itertools
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ByteSize, TypeAdapter

from tests.cluster.conftest import new_space
from tests.cluster.kube import OVERLAYS, Space, pod_templates, rendered
from trainer import configs

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
ROOM = 4 * 2**30
"""Beside the shard cache, for checkpoints on their way to the bucket and what TensorFlow writes."""


@pytest.fixture(scope="module")
def space(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """Without images: nothing runs."""
    yield from new_space({}, tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def service_account(space: Space) -> None:
    space("create", "serviceaccount", "capsnet")


def templates() -> Iterator[Any]:
    for overlay in NAMES if shutil.which("kubectl") else ():
        for thing in rendered(overlay):
            for name, template in pod_templates(thing).items():
                yield pytest.param(overlay, template, id=f"{overlay}-{name}")


@pytest.mark.parametrize("overlay", NAMES)
def test_the_server_takes_an_overlay(space: Space, mpi_operator: None, overlay: str) -> None:
    space("apply", "--server-side", "--dry-run=server", "--kustomize", str(OVERLAYS / overlay))


@pytest.mark.parametrize("component", sorted(path.name for path in (OVERLAYS.parent / "components").iterdir()))
@pytest.mark.parametrize("overlay", ["cifar10-1gpu", "imagenet-multinode"])
def test_the_server_takes_every_component(
    space: Space, mpi_operator: None, tmp_path: Path, overlay: str, component: str
) -> None:
    (tmp_path / "here").symlink_to(OVERLAYS.parent)
    base = {"cifar10-1gpu": "job", "imagenet-multinode": "mpijob"}[overlay]
    components = ["site", *(f"components/{each}" for each in dict.fromkeys(["gpu", component]))]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["here/bases/access", f"here/bases/{base}"],
        "components": [f"here/{each}" for each in components],
        "configMapGenerator": [{"name": "run", "literals": ["RECIPE=quick", "OUTPUT=/scratch/run"]}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    space("apply", "--server-side", "--dry-run=server", "--kustomize", str(tmp_path))


@pytest.mark.parametrize("overlay", NAMES)
def test_every_pod_is_admitted_where_restricted_is_enforced(space: Space, service_account: None, overlay: str) -> None:
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template.get("metadata", {}), "name": name},
            "spec": template["spec"],
        }
        for thing in rendered(overlay)
        for name, template in pod_templates(thing).items()
    ]
    assert pods
    space("apply", "--server-side", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump_all(pods))


@pytest.mark.parametrize(("overlay", "template"), templates())
def test_every_container_asks_for_what_it_needs(overlay: str, template: dict[str, Any]) -> None:
    for container in template["spec"]["containers"]:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= set(requests)
        assert limits["ephemeral-storage"] == requests["ephemeral-storage"]
        assert "memory" in limits


@pytest.mark.parametrize("overlay", NAMES)
def test_where_gpus_are_asked_for_ranks_insist_on_them(overlay: str) -> None:
    for thing in rendered(overlay):
        containers = [template["spec"]["containers"][0] for template in pod_templates(thing).values()]
        given = any("nvidia.com/gpu" in container["resources"]["limits"] for container in containers)
        # of an MPIJob the launcher has it, which gives what begins with CAPSNET_ to the ranks
        assert given == any({"name": "CAPSNET_DEVICE", "value": "gpu"} in each.get("env", []) for each in containers)


def test_the_pods_of_a_probe_share_all_cells() -> None:
    [job] = [thing for thing in rendered("probe") if thing["kind"] == "Job"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(container["args"][-1].split("/")[1])


@pytest.mark.parametrize("overlay", NAMES)
def test_ranks_have_room_for_the_shard_cache(overlay: str) -> None:
    things = rendered(overlay)
    runs = [thing["data"] for thing in things if thing["kind"] == "ConfigMap" and "RECIPE" in thing["data"]]
    for run in runs:
        config = configs.load(run["RECIPE"])
        words = shlex.split(run["OPTIONS"])
        bound = dict(itertools.pairwise(words)).get("--storage.cache_bytes", config.storage.cache_bytes)
        needed = TypeAdapter(ByteSize).validate_python(bound) + ROOM if run["DATA"] else 0
        for thing in things:
            for name, template in pod_templates(thing).items():
                if not name.startswith(("job-", "mpijob-")) or name.endswith("-launcher"):
                    continue
                limit = template["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"]
                [scratch] = [each for each in template["spec"]["volumes"] if each["name"] == "scratch"]
                for size in (limit, scratch["emptyDir"]["sizeLimit"]):
                    assert TypeAdapter(ByteSize).validate_python(f"{size}B") >= needed
