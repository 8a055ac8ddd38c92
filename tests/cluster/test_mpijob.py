"""Training over several pods from and to a bucket in the cluster, through everything that can take a pod away."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kube import Space
from tests.integration.harness import SMALL, Run, records, start
from tests.unit.data.prepare import sources
from trainer.output import newest, streams
from trainer.output.ledger import Ledger

pytestmark = pytest.mark.timeout(1200)  # two slow cores, on which all ranks and the run beside them compute
PATIENCE_SECONDS = 600.0

# float64 hides the order in which ranks add up; another machine's rounding stays below the tolerance
FIELDS = {
    **SMALL,
    "train.precision": "float64",
    "model.stem.channels": "32",
    "train.epochs": "45",
    "train.global_batch_size": "64",
    "checkpoint.every_steps": "40",
    "evaluate.every_epochs": "10",
    "watchdog.silence_seconds": "10",
    "watchdog.hang_seconds": "60",
}
STEPS = 900  # 45 epochs of 20; TensorBoard shows up to 1,000 points
ROUNDING = 1e-9
URI = "gs://sandbox/runs/faults"
LAUNCHER = "training.kubeflow.org/job-name=faults,training.kubeflow.org/job-role=launcher"
WORKERS = "training.kubeflow.org/job-name=faults,training.kubeflow.org/job-role=worker"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 1,280 colour images."""
    folder = tmp_path_factory.mktemp("colour")
    images = sources.colours(folder / "images.zip", train=128, test=8)
    prepare = [sys.executable, "-m", "trainer", "data", "prepare", str(images), str(folder / "shards")]
    subprocess.run([*prepare, "--shards", "train=8,test=2"], check=True)
    return folder / "shards"


@pytest.fixture(scope="module")
def streamed(mpi_operator: None, storage: str, shards: Path) -> None:
    """The shards are in the bucket."""
    for path in sorted(shards.iterdir()):
        if path.is_file():
            url = f"{storage}/upload/storage/v1/b/sandbox/o?uploadType=media&name=shards/{path.name}"
            urllib.request.urlopen(urllib.request.Request(url, path.read_bytes(), method="POST")).close()


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run on one process of this machine, that nobody interrupts; it has begun."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return start(folder, recipe="sabour2017_cifar10", fields={**FIELDS, "data.uri": str(shards)}, small=False)


def options(fields: dict[str, str]) -> str:
    return " ".join(f"--{name}={value}" for name, value in fields.items())


def remove_worker(space: Space) -> None:
    space("delete", "pod", "faults-worker-1", "--wait=false")


def kill_worker(space: Space) -> None:
    """Without a warning: rank 0, and what it had not stored, are lost."""
    space("delete", "pod", "faults-worker-0", "--grace-period=0", "--force", "--wait=false")


def evict_worker(space: Space) -> None:
    """It fills its volume beyond the limit, and the kubelet ends it: an evicted pod stays, and is in the way."""
    space("exec", "faults-worker-1", "--", "sh", "-c", "head --bytes 1100M /dev/zero > /tmp/much")
    evicted = "--field-selector=status.phase=Failed"
    space.until("the kubelet evicts the worker", lambda: space.get("pods", evicted)["items"])


def remove_launcher(space: Space) -> None:
    space("delete", "pod", "--selector", LAUNCHER, "--wait=false")


def suspend_and_resume(space: Space) -> None:
    space("patch", "mpijob", "faults", "--type=merge", "--patch", '{"spec":{"runPolicy":{"suspend":true}}}')
    space.until("all pods are gone", lambda: not running(space, LAUNCHER) and not running(space, WORKERS))
    space("patch", "mpijob", "faults", "--type=merge", "--patch", '{"spec":{"runPolicy":{"suspend":false}}}')


def assert_let_go(space: Space, name: str) -> None:
    workers = f"training.kubeflow.org/job-name={name},training.kubeflow.org/job-role=worker"
    space.until("the workers are let go", lambda: not running(space, workers), within=30)


FAULTS = [evict_worker, remove_worker, kill_worker, remove_launcher, suspend_and_resume]


def running(space: Space, selector: str) -> list[Any]:
    return [pod for pod in space.pods(selector) if pod["status"]["phase"] == "Running"]


def test_a_run_is_the_one_that_nobody_interrupted_whatever_happens_to_its_pods(
    space: Space, streamed: None, alone: Run, tmp_path: Path
) -> None:
    run = {"RECIPE": "sabour2017_cifar10", "DATA": "gs://sandbox/shards", "OUTPUT": URI, "OPTIONS": options(FIELDS)}
    space.apply("sandbox", "faults", {"run": run})
    for fault in FAULTS:
        before = newest.step(URI)
        space.until(f"progress before {fault.__name__}", lambda b=before: newest.step(URI) >= b + 40 or None)
        assert newest.step(URI) < STEPS, "the run was over too soon"
        fault(space)
    assert space.ended("mpijob", "faults", PATIENCE_SECONDS) == "Succeeded", space.state()

    streams.fetch(URI, tmp_path)
    code, output = alone.finish(PATIENCE_SECONDS)
    assert code == 0, output
    ours, theirs = records(tmp_path), records(alone.folder)
    assert [each["step"] for each in ours] == [each["step"] for each in theirs] == list(range(1, STEPS + 1))
    assert [each["loss"] for each in ours] == pytest.approx([each["loss"] for each in theirs], rel=ROUNDING)
    ends = [attempt.end for attempt in Ledger(URI).attempts()]
    assert len(ends) >= 1 + len(FAULTS)
    assert ends[-1] is not None
    assert ends[-1].code == 0
    asked = [end for end in ends if end is not None and end.stopped]
    assert len(asked) >= len(FAULTS) - 1, ends  # all but the kill came with a warning
    assert_let_go(space, "faults")
    words = [sys.executable, "-m", "trainer", "status", "faults", "--namespace", space.name]
    status = " ".join(subprocess.run(words, capture_output=True, text=True).stdout.split())
    assert "old: done" in status
    assert status.count("exit 75") == len(ends) - 1 - sum(end is None for end in ends)


def test_its_scalars_are_in_tensorboard(space: Space, streamed: None) -> None:
    with space.forwarded("service/tensorboard", 6006) as address:
        url = f"{address}/data/plugin/scalars/scalars?run=faults&tag=loss/total"

        def points() -> list[Any] | None:
            try:
                with urllib.request.urlopen(url) as answer:
                    found: list[Any] = json.load(answer)
            except OSError:
                return None
            return found if len(found) == STEPS else None

        found = space.until("TensorBoard shows every step once", points)
    assert [point[1] for point in found] == list(range(1, STEPS + 1))


WORKER = "/spec/mpiReplicaSpecs/Worker/template/spec/containers/0/resources"
LITTLE = [{"op": "replace", "path": f"{WORKER}/{kind}/memory", "value": "300Mi"} for kind in ("requests", "limits")]
ENDINGS = {
    "wrong": ({"OPTIONS": "--train.epoch 3"}, [], "CAPSNET_OPTIONS: unknown option --train.epoch"),
    "memory": ({"RECIPE": "quick"}, LITTLE, "gave up: 3 attempts ended the same way before the first checkpoint"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_trying_again_does_not_mend_ends_the_job_and_lets_the_workers_go(
    space: Space, streamed: None, name: str
) -> None:
    run, patches, word = ENDINGS[name]
    space.apply("sandbox", name, {"run": {"OUTPUT": f"gs://sandbox/runs/{name}", **run}}, {"MPIJob": patches})
    assert space.ended("mpijob", name) == "Failed", space.state()
    assert_let_go(space, name)
    [said] = space.words(f"training.kubeflow.org/job-name={name},training.kubeflow.org/job-role=launcher")
    assert word in said
    assert "memory" in said or name != "memory"
