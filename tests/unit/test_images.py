"""The images: their locks against the pins that they were made from, and what they share with manifests and ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import setuptools
import yaml

from trainer.launch import mpi

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metadata() -> Mapping[str, Any]:
    """What setup.py says."""
    with mock.patch.object(setuptools, "setup") as setup:
        exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {"__name__": "setup"})
    arguments: Mapping[str, Any] = setup.call_args.kwargs
    return arguments


def locked(accelerator: str) -> dict[str, str]:
    text = (ROOT / "docker" / f"requirements-{accelerator}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    found = {}
    for entry in entries:
        match = re.match(r"([\w.-]+)==([\w.+-]+)( ;[^\\]*)? \\\n", entry)
        assert match, entry
        assert "--hash=sha256:" in entry, match[1]
        found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_the_locks_hold_what_setup_pins(metadata: Mapping[str, Any], accelerator: str) -> None:
    wanted = [*metadata["install_requires"], *metadata["extras_require"]["ranks"]]
    wanted += metadata["extras_require"][accelerator]
    lock = locked(accelerator)
    pins = [re.fullmatch(r"([\w.-]+?)(\[[\w-]+\])?==(\S+)", each) for each in wanted if "==" in each]
    assert len(pins) > 15
    for pin in pins:
        assert pin
        assert lock[pin[1]] == pin[3], "run 'make lock'"


def test_only_the_lock_of_gpus_brings_cuda() -> None:
    assert not [name for name in locked("cpu") if name.startswith("nvidia-")]
    assert "nvidia-nccl-cu12" in locked("gpu")


def test_the_driver_of_a_gpu_node_is_found_by_ranks_on_other_machines() -> None:
    """GKE mounts it without a word; ranks that sshd starts have nothing of the image's environment but is passed."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    found = re.search(
        r"^ENV PATH=\S+:/usr/local/nvidia/bin (LD_LIBRARY_PATH)=/usr/local/nvidia/lib64$", text, re.MULTILINE
    )
    assert found
    assert found[1].startswith(mpi.PASSED_ON)


def test_manifests_name_the_image_that_make_builds() -> None:
    """And not with the tag latest, of which Kubernetes asks a registry although the image was loaded onto the node."""
    [image] = yaml.safe_load((ROOT / "k8s" / "site" / "kustomization.yaml").read_text())["images"]
    built = re.search(r"^IMAGE \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert built
    assert built[1] == f"{image['newName']}:{image['newTag']}"
    assert image["newTag"] != "latest"
    assert not [path for path in (ROOT / "k8s").rglob("*.yaml") if "imagePullPolicy" in path.read_text()]
