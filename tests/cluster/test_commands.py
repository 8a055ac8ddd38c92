"""The commands of a person at a terminal."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster.kube import Space


def capsnet(space: Space, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "trainer", *words, "--namespace", space.name]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_run_from_submit_to_delete(space: Space) -> None:
    image = space.images["capsnet"]
    code, output, error = capsnet(space, "submit", "smoke", "--image", image, "--name", "one", "--dry-run")
    assert code == 0, error
    assert "job.batch/one serverside-applied (server dry run)" in error
    code, output, error = capsnet(
        space, "submit", "smoke", "--image", image, "--name", "one", "--set", "train.epochs=1", "--follow"
    )
    assert code == 0, error
    assert "one running" in output
    assert output.splitlines()[-1].startswith("test accuracy: ")
    code, output, _ = capsnet(space, "status")
    assert output.splitlines()[1].split()[:2] == ["one", "done"]
    code, output, _ = capsnet(space, "logs", "one")
    assert "train | recipe quick" in output
    assert capsnet(space, "submit", "smoke", "--image", image, "--name", "one")[0] == 2
    code, output, _ = capsnet(space, "delete", "one", "--yes")
    assert "deleted one" in output
    assert capsnet(space, "status")[1].startswith("no runs in namespace")
    assert not [name for name in space("get", "configmaps", "--output", "name").split() if "/run-" in name]


def test_causes_in_plain_words(space: Space) -> None:
    image = space.images["capsnet"]
    assert capsnet(space, "submit", "smoke", "--image", "capsnet.invalid/none:1", "--name", "image")[0] == 0
    assert capsnet(space, "submit", "cifar10-8gpu", "--image", image, "--name", "gpu")[0] == 0

    def said(name: str, word: str) -> bool:
        return word in capsnet(space, "status", name)[1]

    space.until("status names the image", lambda: said("image", "ImagePull"))
    space.until("status names what the scheduler lacks", lambda: said("gpu", "nvidia.com/gpu"))
    for name in ("image", "gpu"):
        assert capsnet(space, "delete", name, "--yes")[0] == 0


def test_what_a_person_can_mistype_is_one_line_that_says_what_there_is(space: Space) -> None:
    for words, line in {
        ("status", "none"): "no run none in namespace",
        ("submit", "smokk"): "no overlay smokk",
        ("submit", "smoke", "--set", "model.foo=1"): "model.foo=1: no field",
        ("submit", "smoke", "--set", "seed=x"): "seed: ",
        ("submit", "smoke", "--name", "A b"): "--name A b",
        ("status", "--context", "none"): "no context none",
    }.items():
        code, output, error = capsnet(space, *words)
        assert code == 2, error
        assert not output
        assert error.count("\n") == 1
        assert line in error
