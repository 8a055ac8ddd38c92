"""What ends a run for good, and that Kubernetes is told why."""

from __future__ import annotations

from typing import Any

from tests.cluster.kube import Space
from tests.cluster.test_commands import capsnet
from tests.integration.harness import SMALL
from trainer.output import newest
from trainer.output.ledger import Ledger

TRAIN = " ".join(f"--{name}={value}" for name, value in SMALL.items())
LONG = f"{TRAIN} --train.epochs 200 --checkpoint.every_steps 20"
EMULATED = {"op": "add", "path": "/spec/template/spec/containers/0/env/-"}
HOST = {**EMULATED, "value": {"name": "STORAGE_EMULATOR_HOST", "value": "http://storage:4443"}}
CONTAINER = "/spec/template/spec/containers/0"
LITTLE = {"op": "replace", "path": f"{CONTAINER}/resources/requests/cpu", "value": "100m"}  # several run on two cores


def start(space: Space, name: str, *patches: dict[str, Any], **run: str) -> None:
    """The smoke job under another name, with other values in its ConfigMap."""
    values = {"RECIPE": "sabour2017", "OUTPUT": f"gs://sandbox/runs/{name}", "OPTIONS": TRAIN, **run}
    space.apply("smoke", name, {"run": values}, {"Job": [HOST, LITTLE, *patches]})


def words(space: Space, name: str) -> str:
    """The last termination message of a job that has failed."""
    assert space.ended("job", name) == "Failed", space.state()
    said = space.words(f"job-name={name}")
    assert said, space.state()
    return said[-1]


def test_a_wrong_recipe(space: Space, storage: str) -> None:
    start(space, "recipe", RECIPE="nonsense")
    assert "unknown recipe nonsense" in words(space, "recipe")
    assert len(space.pods("job-name=recipe")) == 1  # nothing was tried again


def test_a_bucket_that_is_not_there(space: Space, storage: str) -> None:
    start(space, "bucket", OUTPUT="gs://absent/runs/one")
    assert "no bucket absent" in words(space, "bucket")


def test_a_second_job_on_the_same_output_is_refused_and_a_stop_saves(space: Space, storage: str) -> None:
    uri = "gs://sandbox/runs/shared"
    start(space, "first", OUTPUT=uri, OPTIONS=LONG)
    space.until("the first has a checkpoint", lambda: newest.step(uri) > 0 or None)
    start(space, "second", OUTPUT=uri, OPTIONS=LONG)
    assert f"{uri}: first/" in words(space, "second")
    before = newest.step(uri)
    space("delete", "pod", "--selector", "job-name=first", "--wait=false")
    space.until("another pod goes on", lambda: len(Ledger(uri).attempts()) > 1 or None)
    first, *_ = Ledger(uri).attempts()
    assert first.end is not None
    assert (first.end.code, first.end.stopped) == (75, True)
    assert first.end.step > before
    space.until("it trains on", lambda: newest.step(uri) > first.end.step or None)  # type: ignore[union-attr]
    assert space.condition("job", "first") == ""
    said = capsnet("logs", "first", "--attempt", "1", "--namespace", space.name).stdout.splitlines()
    assert said[0].startswith("rank-0 | rank 0 of 1 on first-")
    assert said[-1].startswith(f"attempt 1 ended at step {first.end.step}, exit 75: stopped on request")
    missing = capsnet("logs", "first", "--attempt", "9", "--namespace", space.name)
    assert f"no log of attempt 9 at {uri}; there are 1" in missing.stderr
    space("delete", "job", "first", "--wait=false")


def test_out_of_memory_three_times_ends_the_run_with_the_limit(space: Space, storage: str) -> None:
    limits = [
        {"op": "replace", "path": f"{CONTAINER}/resources/{kind}/memory", "value": "320Mi"}
        for kind in ("requests", "limits")
    ]
    start(space, "memory", *limits)
    said = words(space, "memory")
    assert "gave up: 3 attempts ended the same way before the first checkpoint" in said
    assert "memory" in said


def test_an_image_that_cannot_be_pulled_and_a_gpu_that_is_not_there(space: Space, storage: str) -> None:
    start(space, "image", {"op": "replace", "path": f"{CONTAINER}/image", "value": "capsnet.invalid/none:1"})
    start(space, "gpu", {"op": "add", "path": f"{CONTAINER}/resources/limits/nvidia.com~1gpu", "value": "64"})

    def waiting() -> str | None:
        [pod] = space.pods("job-name=image")
        states = [each["state"].get("waiting", {}) for each in pod["status"].get("containerStatuses", [])]
        return next((each["reason"] for each in states if "ImagePull" in each.get("reason", "")), None)

    def unschedulable() -> str | None:
        [pod] = space.pods("job-name=gpu")
        held = {each["type"]: each for each in pod["status"].get("conditions", [])}
        return str(held["PodScheduled"]["message"]) if held.get("PodScheduled", {}).get("status") == "False" else None

    assert space.until("the kubelet says it", waiting)
    assert "nvidia.com/gpu" in space.until("the scheduler says it", unschedulable)
    space("delete", "job", "image", "gpu", "--wait=false")
