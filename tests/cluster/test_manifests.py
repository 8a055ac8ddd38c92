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
from tests.cluster.kube import OVERLAYS, Space, kubectl, pod_templates, rendered
from trainer import configs

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
COMPONENTS = sorted(path.name for path in (OVERLAYS.parent / "components").iterdir())
SPOT = "cloud.google.com/gke-spot"
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


def composed(folder: Path, *components: str) -> Path:
    """An overlay of one's own over all kinds of jobs, with the site and these components."""
    (folder / "here").symlink_to(OVERLAYS.parent)
    values = {
        "run": ["RECIPE=quick", "OUTPUT=/scratch/run"],
        "probe": ["STUDY=smoke", "OUTPUT=/scratch/probe", "PODS=3"],
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"here/bases/{each}" for each in ("access", "job", "mpijob", "probe")],
        "components": ["here/site", *(f"here/components/{each}" for each in components)],
        "configMapGenerator": [{"name": name, "literals": literals} for name, literals in values.items()],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def objects(folder: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(kubectl("kustomize", str(folder))) if each]


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_server_takes_every_component(space: Space, mpi_operator: None, tmp_path: Path, component: str) -> None:
    space("apply", "--server-side", "--dry-run=server", "--kustomize", str(composed(tmp_path, component)))


@pytest.mark.parametrize("components", [("gpu", "spot"), ("spot", "gpu")])
def test_gpus_and_spot_nodes_go_together_in_any_order(tmp_path: Path, components: tuple[str, str]) -> None:
    templates = {
        name: each["spec"]
        for thing in objects(composed(tmp_path, *components))
        for name, each in pod_templates(thing).items()
    }
    for name in ("job-train", "mpijob-train-worker", "job-probe"):
        ranks = templates.pop(name)
        assert ranks["nodeSelector"] == {SPOT: "true"}
        assert {each["key"] for each in ranks["tolerations"]} == {"nvidia.com/gpu", SPOT}
        assert ranks["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not any("tolerations" in each or "nodeSelector" in each for each in templates.values())


def test_ranks_reach_each_other_and_other_pods_what_they_need(tmp_path: Path) -> None:
    things = objects(composed(tmp_path, "network-policy"))
    policies = [thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"]
    launcher, worker, train, tensorboard = (
        {"app.kubernetes.io/name": "capsnet", "app.kubernetes.io/component": each}
        for each in ("launcher", "worker", "train", "tensorboard")
    )
    storage = {"app.kubernetes.io/name": "capsnet-storage"}
    for one, other in itertools.permutations((launcher, worker)):
        assert reaches(policies, one, other, 40000)
    assert reaches(policies, worker, worker, 2222)
    for each in (launcher, worker, train, tensorboard):
        assert reaches(policies, each, storage, 4443)
        assert not reaches(policies, each, train, 40000)
        assert not reaches(policies, train, each, 40000)
    assert reaches(policies, {}, tensorboard, 6006)
    assert not reaches(policies, {}, worker, 2222)


def reaches(policies: list[dict[str, Any]], source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """Whether pods with these labels may open a TCP connection; what no policy selects is free."""

    def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        wanted = {key: [value] for key, value in selector.get("matchLabels", {}).items()}
        wanted |= {each["key"]: each["values"] for each in selector.get("matchExpressions", [])}  # all are In
        return all(labels.get(key) in values for key, values in wanted.items())

    def allows(direction: str, peers: str, labels: dict[str, str], peer: dict[str, str]) -> bool:
        mine = [each for each in policies if selects(each["podSelector"], labels) and direction in each["policyTypes"]]
        rules = [rule for each in mine for rule in each.get(direction.lower(), [])]
        return not mine or any(
            any(each["port"] <= port <= each.get("endPort", each["port"]) for each in rule["ports"])
            and (
                peers not in rule
                or any(selects(each["podSelector"], peer) for each in rule[peers] if "ipBlock" not in each)
            )
            for rule in rules
        )

    return allows("Egress", "to", source, target) and allows("Ingress", "from", target, source)


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


@pytest.mark.parametrize("overlay", NAMES)
def test_an_image_on_the_node_is_not_asked_of_a_registry(overlay: str) -> None:
    """As Kubernetes does with the tag latest: an image that was only loaded there would not be found."""
    for thing in rendered(overlay):
        for template in pod_templates(thing).values():
            for container in template["spec"]["containers"]:
                assert "imagePullPolicy" not in container
                assert container["image"].partition(":")[2] not in ("", "latest")


def test_the_pods_of_a_probe_share_all_cells(tmp_path: Path) -> None:
    [shipped] = [thing["spec"] for thing in rendered("probe") if thing["kind"] == "Job"]
    [run] = [thing["data"] for thing in rendered("probe") if thing["kind"] == "ConfigMap"]
    assert shipped["completions"] == shipped["parallelism"] == int(run["PODS"])
    things = objects(composed(tmp_path, "probe-pods"))
    [other] = [thing["spec"] for thing in things if thing["kind"] == "Job" and thing["metadata"]["name"] == "probe"]
    assert other["completions"] == other["parallelism"] == 3


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
