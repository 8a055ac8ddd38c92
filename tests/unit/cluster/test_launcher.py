from __future__ import annotations

import pytest

from trainer.cluster.launcher import job_of
from trainer.errors import ConfigError, StorageRefused

SET = {"CAPSNET_RECIPE": "quick", "CAPSNET_OUTPUT": "gs://b/runs/a"}


def test_the_environment_becomes_a_command() -> None:
    job = job_of({**SET, "CAPSNET_DATA": "gs://b/c", "CAPSNET_OPTIONS": "--seed 1 --data.name 'a b'"}, 2, None)
    assert job.arguments == [
        *("train", "quick", "--data.uri", "gs://b/c", "--run", "gs://b/runs/a"),
        *("--seed", "1", "--data.name", "a b"),
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


def test_options_that_a_shell_would_not_take() -> None:
    with pytest.raises(ConfigError, match="CAPSNET_OPTIONS: No closing quotation"):
        job_of({**SET, "CAPSNET_OPTIONS": "--name 'a"}, 1, None)
