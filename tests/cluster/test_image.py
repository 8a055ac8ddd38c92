"""The image alone, as a Docker engine runs it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.integration.harness import SMALL


@pytest.fixture(scope="module")
def local_image(image: str) -> str:
    if shutil.which("docker") is None:
        pytest.skip("no docker on the PATH")
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
        pytest.skip(f"no Docker engine here that holds {image}")
    return image


def run(image: str, *words: str) -> str:
    command = ["docker", "run", "--rm", image, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_alone_it_prints_its_help_and_with_train_it_trains(local_image: str) -> None:
    assert run(local_image).startswith("usage: capsnet ")
    fields = [f"--{name}={value}" for name, value in SMALL.items()]
    assert "test accuracy: " in run(local_image, "train", *fields)
