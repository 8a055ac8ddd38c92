from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cluster.overlay import check_name, find, images_of, split_image
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("capsnet", "capsnet", ""),
        ("capsnet:1", "capsnet", "1"),
        ("host:5000/a/capsnet", "host:5000/a/capsnet", ""),
        ("host:5000/a/capsnet:v1", "host:5000/a/capsnet", "v1"),
    ],
)
def test_a_port_is_no_tag(image: str, repository: str, tag: str) -> None:
    assert split_image(image) == (repository, tag)


@pytest.mark.parametrize("name", ["a", "smoke-1125-101010", "x" * 52])
def test_names_of_runs(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "a_b", "x" * 53])
def test_what_cannot_name_a_run(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        check_name(name)


def test_overlays_by_name_and_by_path(tmp_path: Path) -> None:
    assert find("smoke").name == "smoke"
    (tmp_path / "kustomization.yaml").touch()
    assert find(str(tmp_path)) == tmp_path
    with pytest.raises(ConfigError, match=r"no overlay nothing: .* smoke"):
        find("nothing")


def test_images_of_all_pods() -> None:
    pod = {"spec": {"containers": [{"image": "a"}]}}
    other = {"spec": {"containers": [{"image": "b"}]}}
    roles = {"Launcher": {"template": pod}, "Worker": {"template": other}}
    assert images_of({"kind": "MPIJob", "spec": {"mpiReplicaSpecs": roles}}) == ["a", "b"]
    assert images_of({"kind": "Job", "spec": {"template": pod}}) == ["a"]
