"""A study shared by pods."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.kube import Space
from trainer.probe import collect, run
from trainer.probe.records import MEMORY, OK, Records
from trainer.probe.study import Arm, Budget, Study, over
from trainer.storage import Location

SMOKE, OWN = "gs://sandbox/probes/smoke", "gs://sandbox/probes/own"
CONTAINER = "/spec/template/spec/containers/0"
SETTINGS = {"STUDY": "smoke", "OPTIONS": "--axis children --seconds 400", "OUTPUT": SMOKE, "PODS": "2"}
SMALL = [
    *(
        {"op": "replace", "path": f"{CONTAINER}/resources/{kind}/memory", "value": "3Gi"}
        for kind in ("requests", "limits")
    ),
    {"op": "replace", "path": f"{CONTAINER}/resources/requests/cpu", "value": "100m"},
]
STUDY = Study(
    name="own",
    about="a cell that fits, and one that takes about 4 GiB",
    measure="cost",
    recipe="quick",
    fields={"train.global_batch_size": "16", "train.threads": "1", "model.routing.xla": "false"},
    budget=Budget(seconds=400, memory_mib=1500),
    arms=(Arm("dynamic"),),
    axes=(over("batch", "train.global_batch_size", ("16", "8192")),),
)
PROGRAM = f"""
import os
from trainer.probe.run import run
from trainer.probe.study import Arm, Axis, Budget, Study, Thresholds
run({STUDY!r}, {OWN!r}, (int(os.environ["JOB_COMPLETION_INDEX"]), 2), print, lambda: False)
"""


def start(space: Space, name: str, container: dict[str, list[str]] | None = None) -> None:
    """The Job of the overlay as two pods; ``container``: what else each of them runs."""
    words = [{"op": "add", "path": f"{CONTAINER}/{what}", "value": value} for what, value in (container or {}).items()]
    space.apply("probe", name, {"probe": SETTINGS}, {"Job": [*words, *SMALL]}, ("probe-pods", "emulator"))


def outcomes(output: Location) -> dict[str, str]:
    return {cell.key: result.outcome for cell, result in collect.results(output, print)[1]}


@pytest.mark.usefixtures("storage")
def test_a_pod_that_is_killed_costs_a_cell_and_the_table_is_whole(space: Space) -> None:
    start(space, "smoke")
    records = Records(SMOKE)
    space.until("a cell is under way", lambda: records.known(print).started)
    pod = space.pods("job-name=smoke,batch.kubernetes.io/job-completion-index=0")[0]["metadata"]["name"]
    space("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    assert space.ended("job", "smoke") == "Complete", space.state()
    _, found = collect.results(SMOKE, print)
    assert [result.outcome for _, result in found] == [OK] * 4
    assert all(result.numbers["step_seconds"] > 0 for _, result in found)


@pytest.mark.usefixtures("storage")
def test_pods_come_to_the_outcomes_of_one_machine_where_a_cell_runs_out_of_memory(space: Space, tmp_path: Path) -> None:
    start(space, "own", {"command": ["tini", "--", "python", "-c", PROGRAM], "args": []})
    run.run(STUDY, tmp_path, (0, 1), print, lambda: False)
    assert space.ended("job", "own") == "Complete", space.state()
    assert outcomes(OWN) == outcomes(tmp_path) == {"dynamic/centre/seed0": OK, "dynamic/batch=8192/seed0": MEMORY}
