"""A GPU that the scheduler gives and TensorFlow does not see: one is advertised that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kube import Space, kubectl
from tests.cluster.test_commands import capsnet

GPU = "nvidia.com/gpu"
CAPACITY = f"/status/capacity/{GPU.replace('/', '~1')}"
RESOURCES = "/spec/template/spec/containers/0/resources"
LITTLE = [
    {"op": "replace", "path": f"{RESOURCES}/{kind}/{name}", "value": value}
    for name, value in (("memory", "2Gi"), ("ephemeral-storage", "2Gi"))
    for kind in ("requests", "limits")
] + [{"op": "replace", "path": f"{RESOURCES}/requests/cpu", "value": "100m"}]


def nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("get", "nodes", "--output", "json"))["items"]
    return found


def advertise(node: str, operation: dict[str, str]) -> None:
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "--patch", json.dumps([operation]))


@pytest.fixture
def imaginary_gpu(space: Space) -> Iterator[None]:
    """On one node, as long as the test lasts."""
    if any(int(node["status"]["capacity"].get(GPU, 0)) for node in nodes()):
        pytest.skip("the cluster has GPUs, or says so: what a pod finds there is not known")
    if kubectl("auth", "can-i", "patch", "nodes", "--subresource=status", check=False).split()[-1:] != ["yes"]:
        pytest.skip("this user may not patch nodes/status, by which a GPU is advertised")
    name = next(node["metadata"]["name"] for node in nodes() if not node["spec"].get("unschedulable"))
    advertise(name, {"op": "add", "path": CAPACITY, "value": "1"})
    try:
        yield
    finally:
        advertise(name, {"op": "remove", "path": CAPACITY})
        space.until("it is gone", lambda: all(GPU not in node["status"]["allocatable"] for node in nodes()))


def test_a_gpu_that_is_given_and_not_seen_ends_the_run_in_one_line(space: Space, imaginary_gpu: None) -> None:
    values = {"RECIPE": "quick", "DATA": "", "OUTPUT": "/scratch/run"}
    space.apply("cifar10-1gpu", "gpu", {"run": values}, {"Job": LITTLE})
    assert space.ended("job", "gpu") == "Failed", space.state()
    [pod] = space.pods("job-name=gpu")  # nothing was tried again
    assert pod["spec"]["nodeName"]
    [said] = space.words("job-name=gpu")
    assert said.startswith("a GPU was requested (CAPSNET_DEVICE=gpu) and none is visible on "), said
    assert "\n" not in said
    shown = " ".join(capsnet("status", "gpu", "--namespace", space.name).stdout.split())
    assert f"cause exit 2: {said}" in shown
