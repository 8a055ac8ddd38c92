"""A study shared by pods."""

from __future__ import annotations

import pytest

from tests.cluster.kube import Space
from trainer.probe import collect
from trainer.probe.records import Records

URI = "gs://sandbox/probes/smoke"
CONTAINER = "/spec/template/spec/containers/0"
SETTINGS = {"STUDY": "smoke", "OPTIONS": "--axis children --seconds 400", "OUTPUT": URI, "PODS": "2"}
PATCHES = [
    *(
        {"op": "replace", "path": f"{CONTAINER}/resources/{kind}/memory", "value": "3Gi"}
        for kind in ("requests", "limits")
    ),
    {"op": "replace", "path": f"{CONTAINER}/resources/requests/cpu", "value": "100m"},
]


def test_a_pod_that_is_killed_costs_a_cell_and_the_table_is_whole(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.apply("", components=("emulator",))
    space("rollout", "status", "deployment/storage", "--timeout=120s")
    space.apply("probe", "", {"probe": SETTINGS}, {"Job": PATCHES}, ("probe-pods", "emulator"))
    with space.forwarded("service/storage", 4443) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        records = Records(URI)
        space.until("a cell is under way", lambda: records.known(print).started)
        pod = space.pods("batch.kubernetes.io/job-completion-index=0")[0]["metadata"]["name"]
        space("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
        assert space.ended("job", "probe") == "Complete", space.state()
        _, found = collect.results(URI, print)
    assert [result.outcome for _, result in found] == ["ok"] * 4
    assert sum(result.numbers["step_seconds"] > 0 for _, result in found) == 4
