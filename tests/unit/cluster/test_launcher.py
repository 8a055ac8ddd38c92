from __future__ import annotations

from pathlib import Path

import pytest

from trainer import cli
from trainer.cluster import launcher, pods
from trainer.cluster.launcher import Job
from trainer.errors import ConfigError, StorageRefused

SET = {"CAPSNET_RECIPE": "quick", "CAPSNET_OUTPUT": "gs://b/runs/a"}


def job_of(environment: dict[str, str], ranks: int, hostfile: Path | None) -> Job:
    return launcher.job_of(environment, ranks, hostfile, cli._parsed)


def test_the_environment_becomes_a_command() -> None:
    job = job_of({**SET, "CAPSNET_DATA": "gs://b/c", "CAPSNET_OPTIONS": "--seed 1 --weights-from 'a b'"}, 2, None)
    assert job.arguments == [
        *("train", "quick", "--data.uri", "gs://b/c", "--run", "gs://b/runs/a"),
        *("--seed", "1", "--weights-from", "a b"),
    ]
    assert job.output == "gs://b/runs/a"
    assert job_of({**SET, "CAPSNET_DATA": ""}, 1, None).arguments == ["train", "quick", "--run", "gs://b/runs/a"]


def test_the_job_has_the_name_that_the_cluster_gave_it() -> None:
    assert job_of({**SET, "CAPSNET_JOB": "smoke/uid"}, 1, None).name == "smoke/uid"
    assert job_of(SET, 1, None).name


@pytest.mark.parametrize("missing", SET)
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing} is not set"):
        job_of({**SET, missing: ""}, 1, None)


def test_an_output_without_a_bucket_is_refused() -> None:
    with pytest.raises(StorageRefused, match="gs://: names no bucket"):
        job_of({**SET, "CAPSNET_OUTPUT": "gs://"}, 1, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--name 'a", "CAPSNET_OPTIONS: No closing quotation"),
        ("--train.epoch 3", r"CAPSNET_OPTIONS: unknown option --train\.epoch \(did you mean --train\.epochs\?\)"),
        ("--seed", "CAPSNET_OPTIONS: argument --seed: expected one argument"),
        ("--dry-run", "CAPSNET_OPTIONS: --dry-run trains nothing"),
        ("--help", "CAPSNET_OPTIONS: --help does nothing else"),
        ("--run gs://b/runs/b", "CAPSNET_OPTIONS: --run gs://b/runs/b: the output is CAPSNET_OUTPUT, and that is gs:"),
    ],
)
def test_options_that_cannot_be(options: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        job_of({**SET, "CAPSNET_OPTIONS": options}, 1, None)


@pytest.mark.parametrize(
    ("arguments", "wrong", "words"),
    [
        ([], {"CAPSNET_RECIPE": ""}, "CAPSNET_RECIPE is not set"),
        ([], {"CAPSNET_OUTPUT": "s3://x/y"}, "s3://x/y: cannot be used here"),
        ([], {"CAPSNET_OPTIONS": "--train.epoch 3"}, "CAPSNET_OPTIONS: unknown option --train.epoch"),
        ([], {"CAPSNET_OUTPUT": "/proc/run"}, "CAPSNET_OUTPUT: /proc/run cannot be made (No such file or directory)"),
        (["--ranks", "0"], {}, "--ranks 0: give 1 or more"),
    ],
)
def test_wrong_settings_end_a_job_over_several_pods_with_their_cause(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    wrong: dict[str, str],
    words: str,
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(pods, "end_job", lambda: ended.append(True))
    monkeypatch.setattr(launcher, "TERMINATION_LOG", tmp_path / "log")
    launcher.TERMINATION_LOG.touch()
    for name, value in {**SET, **wrong}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["job", *arguments, "--hostfile", "/etc/mpi/hostfile"]) == 2
    said = launcher.TERMINATION_LOG.read_text()
    assert said.startswith(words)
    assert capsys.readouterr().err == f"capsnet: {said}"
    assert ended


def test_what_nobody_thought_of_ends_a_job_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def describe() -> Job:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(launcher, "TERMINATION_LOG", tmp_path / "log")
    launcher.TERMINATION_LOG.touch()
    assert launcher.run(describe, several_pods=False) == 1
    assert launcher.TERMINATION_LOG.read_text() == "OSError: the disk is on fire\n"
    assert "Traceback" in capsys.readouterr().err
