"""The cluster of KUBECONFIG, with the package's image in it.

CAPSNET_IMAGE   an image that the cluster can pull; without it one is built here with Docker
LOAD            command that takes an image archive to the cluster's nodes, as 'kind load image-archive'
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import EMULATOR, Space, kubectl
from tests.conftest import Once
from tests.gcs.server import binary

ROOT = Path(__file__).parents[2]
BUILT, BUILT_EMULATOR = "capsnet:test", "capsnet-storage:test"


@pytest.fixture(scope="session")
def cluster() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: https://kubernetes.io/docs/tasks/tools")
    if not os.environ.get("KUBECONFIG") and not Path.home().joinpath(".kube/config").exists():
        pytest.skip("no cluster: set KUBECONFIG")
    answer = kubectl("get", "--raw", "/version", check=False)
    if "gitVersion" not in answer:
        pytest.skip(f"the cluster of KUBECONFIG does not answer: {answer.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def mpi_operator(cluster: None) -> None:
    if "mpijobs" not in kubectl("api-resources", "--api-group", "kubeflow.org", "--output", "name", check=False):
        pytest.skip("the cluster has no MPI Operator: https://github.com/kubeflow/mpi-operator")


@pytest.fixture(scope="session")
def images(cluster: None, made_once: Once) -> dict[str, str]:
    """What stands in for the images that manifests name."""
    given = os.environ.get("CAPSNET_IMAGE")
    if given:
        return {"capsnet": given, **_emulator()}
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no image: set CAPSNET_IMAGE, or start a Docker engine to build one")
    load = os.environ.get("LOAD")
    if not load:
        pytest.skip("LOAD is not set: a command that takes an image archive to the nodes, as 'kind load image-archive'")
    made_once("images", lambda folder: _build_and_load(folder, shlex.split(load)))
    return {"capsnet": BUILT, EMULATOR: BUILT_EMULATOR}


def _build_and_load(folder: Path, load: list[str]) -> None:
    subprocess.run(["make", "image", f"IMAGE={BUILT}", "ACCELERATOR=cpu"], cwd=ROOT, check=True)
    shutil.copy(binary(), folder / "fake-gcs-server")
    emulator = 'FROM debian:bookworm-slim\nCOPY fake-gcs-server /bin/\nENTRYPOINT ["fake-gcs-server"]\n'
    (folder / "Dockerfile").write_text(emulator)
    subprocess.run(["docker", "build", "--quiet", "--tag", BUILT_EMULATOR, str(folder)], check=True)
    for image in (BUILT, BUILT_EMULATOR):
        archive = folder / "image.tar"
        subprocess.run(["docker", "save", image, "--output", str(archive)], check=True)
        subprocess.run([*load, str(archive)], check=True)
        archive.unlink()


def _emulator() -> dict[str, str]:
    given = os.environ.get("CAPSNET_EMULATOR_IMAGE")
    return {EMULATOR: given} if given else {}


def new_space(images: dict[str, str], folder: Path) -> Iterator[Space]:
    name = f"capsnet-test-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Space(name, images, folder)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def space(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """A namespace for the tests of a file."""
    yield from new_space(images, tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def image(images: dict[str, str]) -> str:
    return images["capsnet"]


@pytest.fixture(scope="module")
def namespace(space: Space) -> str:
    return space.name


@pytest.fixture(scope="module")
def storage(space: Space) -> Iterator[str]:
    """A storage server in the namespace, within this process's reach: its address."""
    space.apply("", components=("emulator",))
    space("rollout", "status", "deployment/storage", "--timeout=120s")
    with space.forwarded("service/storage", 4443) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        yield address
