"""submit, status, logs and delete on a real cluster, each failure made there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE_SECONDS = 540.0
EPOCHS = 3  # of the smoke job's 16: a minute alone on two slow cores


def capsnet(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, **environment},
    )


def until_status_says(namespace: str, name: str, words: str) -> str:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = " ".join(capsnet("status", name, "--namespace", namespace).stdout.split())
        if words in said or time.monotonic() > until:
            assert words in said
            return said
        time.sleep(2)


def test_smoke_is_followed_to_its_accuracy(namespace: str, image: str) -> None:
    at = ("--namespace", namespace)
    named = ("--image", image, "--name", "smoke-a", "--set", f"train.epochs={EPOCHS}")
    done = capsnet("submit", "smoke", *at, *named, "--follow")
    assert done.returncode == 0, done.stderr
    assert f"options  --train.epochs {EPOCHS}" in done.stdout
    accuracy = re.search(r"^test accuracy: ([\d.]+) % \(2000 images", done.stdout, re.MULTILINE)
    assert accuracy, done.stdout
    assert float(accuracy[1]) > 80  # 85.2 on one machine; of 2,000 images, with another's rounding, a few points
    assert done.stdout.rstrip().endswith("done: smoke-a")

    labels = json.loads(
        subprocess.run(
            ["kubectl", *at, "get", "jobs,pods,configmaps", "-l", "app.kubernetes.io/instance=smoke-a", "-o", "json"],
            capture_output=True,
            check=True,
        ).stdout
    )
    assert sorted(entry["kind"] for entry in labels["items"]) == ["ConfigMap", "Job", "Pod"]
    assert "train | test accuracy" in capsnet("logs", "smoke-a", *at).stdout
    assert re.search(r"^smoke-a +Job +done ", capsnet("status", *at).stdout, re.MULTILINE)

    again = capsnet("submit", "smoke", *at, "--name", "smoke-a")
    assert again.returncode == 2
    assert "there is a run smoke-a (Job) already" in again.stderr
    assert "give --yes" in capsnet("delete", "smoke-a", *at).stderr
    assert capsnet("delete", "smoke-a", *at, "--yes").returncode == 0
    assert "no run smoke-a" in capsnet("status", "smoke-a", *at).stderr


def test_wrong_data_ends_with_the_programs_own_line(namespace: str, image: str) -> None:
    at = ("--namespace", namespace)
    done = capsnet("submit", "smoke", *at, "--image", image, "--name", "wrong", "--data", "/nowhere", "--follow")
    assert done.returncode == 2
    assert "failed: exit 2: /nowhere: no such folder" in done.stdout


def test_an_image_that_cannot_be_pulled(namespace: str) -> None:
    capsnet("submit", "smoke", "--namespace", namespace, "--image", "nowhere.invalid/capsnet:1", "--name", "image")
    until_status_says(namespace, "image", "image nowhere.invalid/capsnet:1 cannot be pulled")
    capsnet("delete", "image", "--namespace", namespace, "--yes")


def test_more_gpus_than_there_are(namespace: str, image: str) -> None:
    to = ("--data", "gs://b/d", "--output", "gs://b/o")
    capsnet("submit", "cifar10-8gpu", "--namespace", namespace, "--image", image, "--name", "gpu", *to)
    until_status_says(namespace, "gpu", "no node has enough GPUs")
    gone = capsnet("delete", "gpu", "--namespace", namespace, "--yes")
    assert "checkpoints stay in gs://b/o" in gone.stdout


def test_a_memory_limit_that_is_too_small(namespace: str, image: str, tmp_path: Path) -> None:
    smoke = Path(__file__).parents[2] / "k8s" / "overlays" / "smoke"
    resources = "/spec/template/spec/containers/0/resources"
    steps = [{"op": "replace", "path": f"{resources}/{key}/memory", "value": "100Mi"} for key in ("requests", "limits")]
    content = {
        "resources": [os.path.relpath(smoke, tmp_path.resolve())],
        "patches": [{"target": {"kind": "Job"}, "patch": json.dumps(steps)}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    done = capsnet("submit", str(tmp_path), "--namespace", namespace, "--image", image, "--name", "memory", "--follow")
    assert done.returncode == 1, done.stderr
    assert "out of memory: killed at the container's limit" in done.stdout


def as_account(namespace: str, account: str, folder: Path) -> dict[str, str]:
    """The environment of a ServiceAccount of the namespace, made here."""
    at = ["kubectl", "--namespace", namespace]
    subprocess.run([*at, "create", "serviceaccount", account], check=True)
    token = subprocess.run([*at, "create", "token", account], check=True, capture_output=True, text=True).stdout
    asked = ["kubectl", "config", "view", "--raw", "--minify", "-o", "json"]
    content = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    content["users"][0]["user"] = {"token": token.strip()}
    (folder / account).write_text(json.dumps(content))
    return {"KUBECONFIG": str(folder / account)}


def test_no_permission(namespace: str, tmp_path: Path) -> None:
    nobody = as_account(namespace, "nobody", tmp_path)
    for words in (["status"], ["logs", "a"], ["delete", "a", "--yes"], ["submit", "smoke"]):
        refused = capsnet(*words, "--namespace", namespace, **nobody)
        assert refused.returncode == 2
        assert f"{namespace}:nobody may not list jobs.batch in namespace {namespace}" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_who_may_edit_a_namespace_may_run_in_one_pod(namespace: str, mpi_operator: None, tmp_path: Path) -> None:
    editor = as_account(namespace, "editor", tmp_path)
    at = ["kubectl", "--namespace", namespace, "create"]
    binding = ["--serviceaccount", f"{namespace}:editor"]
    subprocess.run([*at, "rolebinding", "edits", "--clusterrole=edit", *binding], check=True)
    refused = capsnet("submit", "smoke", "--namespace", namespace, **editor)
    assert f"{namespace}:editor may not list mpijobs.kubeflow.org in namespace {namespace}" in refused.stderr
    subprocess.run([*at, "role", "mpi", "--verb=*", "--resource=mpijobs.kubeflow.org"], check=True)
    subprocess.run([*at, "rolebinding", "mpi", "--role=mpi", *binding], check=True)
    taken = capsnet("submit", "smoke", "--namespace", namespace, "--dry-run", **editor)
    assert taken.stderr.rstrip().endswith("the server would take it")
    refused = capsnet("submit", "sandbox", "--namespace", namespace, "--dry-run", **editor)  # its launcher needs a Role
    assert refused.returncode == 2
    assert "editor may not patch roles.rbac.authorization.k8s.io" in refused.stderr


def test_a_namespace_that_is_not_there() -> None:
    for words in (["status"], ["status", "a"], ["submit", "smoke"], ["submit", "sandbox", "--dry-run"]):
        refused = capsnet(*words, "--namespace", "capsnet-absent")
        assert refused.returncode == 2
        assert refused.stderr.startswith("capsnet: there is no namespace capsnet-absent: give another --namespace")
        assert len(refused.stderr.splitlines()) == 1


def test_without_kubectl_nothing_is_submitted() -> None:
    refused = capsnet("submit", "smoke", PATH="/nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith("capsnet: kubectl is not on the PATH, and renders the manifests: see ")


def test_a_server_that_is_down(tmp_path: Path) -> None:
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "down", "context": {"cluster": "c", "user": "u"}}
    content = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    (tmp_path / "config").write_text(yaml.safe_dump({**content, "current-context": "down"}))
    silent = capsnet("status", KUBECONFIG=str(tmp_path / "config"))
    assert silent.returncode == 1
    assert silent.stderr.startswith("capsnet: the cluster does not answer")
    assert len(silent.stderr.splitlines()) == 1
