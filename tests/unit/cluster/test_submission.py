from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from trainer import cli
from trainer.cli_cluster import check_settings, fields_of
from trainer.cluster import overlay
from trainer.cluster.api import refusal
from trainer.cluster.submission import NAME, Request, changes, new_name
from trainer.errors import ConfigError

NOW = time.strptime("2026-01-02 03:04:05", "%Y-%m-%d %H:%M:%S")
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: run-abcdefghij}
data: {RECIPE: quick, DATA: "", OUTPUT: gs://b/runs/smoke, OPTIONS: --seed 1}
---
apiVersion: batch/v1
kind: Job
metadata: {name: smoke, labels: {app.kubernetes.io/component: train}}
spec:
  template: {metadata: {labels: {}}, spec: {containers: [{name: train, image: "registry.invalid:5000/a/capsnet:1"}]}}
"""
BASE = overlay.parsed(MANIFEST, "test")


def request(**given: object) -> Request:
    return Request(
        **{"overlay": "smoke", "name": None, "image": None, "data": None, "output": None, "fields": {}, **given}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["smoke", "My_Overlay", "8gpu", "a" * 90])
def test_new_names_are_dns_labels(folder: str) -> None:
    name = new_name(Path(folder), NOW)
    assert NAME.fullmatch(name)
    assert len(name) <= 50
    assert name.endswith("-0102-030405")


def test_the_output_gets_the_name_of_the_run() -> None:
    assert changes(request(), BASE, "smoke", "smoke-1") == {"OUTPUT": "gs://b/runs/smoke-1"}
    assert changes(request(), BASE, "other", "other-1") == {}
    assert changes(request(output="gs://b/x"), BASE, "smoke", "smoke-1") == {"OUTPUT": "gs://b/x"}


def test_fields_follow_the_options_of_the_overlay() -> None:
    fields = fields_of(["train.epochs=2", "train.budget_seconds=1"])
    changed = changes(request(fields=fields), BASE, "other", "n")
    assert changed == {"OPTIONS": "--seed 1 --train.epochs 2 --train.budget_seconds 1"}
    check_settings({**BASE.settings, **changed}, cli._parsed)


def test_the_kustomization_repeats_nothing_of_the_overlay() -> None:
    content = overlay.kustomization("../x", BASE, "n", "other.invalid/capsnet@sha256:ab", {"OUTPUT": "gs://b/n"})
    assert content["resources"] == ["../x"]
    assert content["images"] == [
        {"name": "registry.invalid:5000/a/capsnet", "newName": "other.invalid/capsnet", "digest": "sha256:ab"}
    ]
    assert content["configMapGenerator"][0]["literals"] == ["OUTPUT=gs://b/n", "INSTANCE=n"]
    paths = [step["path"] for step in json.loads(content["patches"][0]["patch"])]
    assert "/spec/template/metadata/labels/app.kubernetes.io~1instance" in paths
    assert yaml.safe_load(json.dumps(content)) == content


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.epoch=1", r"unknown field \(did you mean train.epochs\?\)"),
        ("train.epochs", "give field=value"),
        ("recipe=quick", "unknown field"),
        ("data.uri=gs://b", "give --data gs://b"),
    ],
)
def test_what_is_no_field_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fields_of([text])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"OPTIONS": "--train.epochs abc"}, r"train\.epochs.*abc"),
        ({"OPTIONS": "--train.epoch 3"}, r"OPTIONS: unknown option --train\.epoch \(did you mean --train\.epochs\?\)"),
        ({"OPTIONS": "--data.name 'a"}, "OPTIONS: No closing quotation"),
        ({"RECIPE": "nonsense"}, "unknown recipe nonsense"),
        ({"OUTPUT": ""}, "OUTPUT is not set"),
    ],
)
def test_settings_are_checked_before_anything_is_sent(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_settings({**BASE.settings, **wrong}, cli._parsed)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'jobs.batch is forbidden: User "u" cannot list resource "jobs" in API group "batch" in the namespace "n"',
            "permission denied: u may not list jobs.batch in namespace n; ",
        ),
        (
            'error: resource mapping not found for name: "a" namespace: "" from "STDIN": no matches for kind "MPIJob" '
            'in version "kubeflow.org/v2beta1"',
            "the cluster does not know the kind MPIJob (kubeflow.org/v2beta1); install the MPI Operator",
        ),
        (
            "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
            "the cluster does not answer (The connection to the server 127.0.0.1:1 was refused",
        ),
    ],
)
def test_refusals_in_one_line(said: str, words: str) -> None:
    assert str(refusal(said)).startswith(words)


def test_an_overlay_without_a_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 training jobs"):
        overlay.parsed("kind: Service\nmetadata: {name: a}\n", "k8s/x")
