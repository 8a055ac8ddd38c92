"""What a pod of a probe makes of its environment."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from trainer import cli, cli_probe, cli_probe_job
from trainer.cluster import command, launcher

SET = {"CAPSNET_STUDY": "smoke", "CAPSNET_OUTPUT": "gs://b/probes/a", "CAPSNET_PODS": "4", "JOB_COMPLETION_INDEX": "3"}


def test_the_environment_becomes_a_share_of_a_study() -> None:
    given = {**SET, "CAPSNET_DATA": "gs://b/c", "CAPSNET_OPTIONS": "--axis 'parents' --seconds 9"}
    assert command.probe(given, "3", "CAPSNET_") == [
        *("smoke", "--axis", "parents", "--seconds", "9", "--data", "gs://b/c"),
        *("--output", "gs://b/probes/a", "--shard", "3/4"),
    ]
    assert command.probe({"STUDY": "smoke", "OUTPUT": "a", "DATA": "", "PODS": ""}, "0")[1:] == [
        *("--output", "a", "--shard", "0/1")
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"CAPSNET_STUDY": ""}, "CAPSNET_STUDY is not set"),
        ({"CAPSNET_STUDY": "nonsense"}, "unknown study nonsense"),
        ({"CAPSNET_OPTIONS": "--axs parents"}, "CAPSNET_OPTIONS: unknown option --axs (did you mean --axis?)"),
        ({"CAPSNET_PODS": "3"}, "--shard 3/3: give i/N"),
        ({"CAPSNET_DEVICE": "gpu"}, "a GPU was requested (CAPSNET_DEVICE=gpu) and this pod has none"),
    ],
)
def test_wrong_settings_end_a_pod_with_their_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(cli_probe_job.gpus, "count", lambda: 0)
    monkeypatch.setattr(launcher, "TERMINATION_LOG", tmp_path / "log")
    launcher.TERMINATION_LOG.touch()
    for name, value in {**SET, **wrong}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["probe", "job"]) == 2
    assert launcher.TERMINATION_LOG.read_text().startswith(words)


def test_what_is_right_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(cli_probe, "_run", lambda parsed: len(seen.append(parsed) or ()))  # type: ignore[func-returns-value]
    for name, value in {**SET, "CAPSNET_OPTIONS": "--memory 9000"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["probe", "job"]) == 0
    [parsed] = seen
    assert (parsed.study, parsed.output, parsed.shard, parsed.memory) == ("smoke", "gs://b/probes/a", "3/4", 9000)
    assert cli_probe._shard(parsed.shard) == (3, 4)
