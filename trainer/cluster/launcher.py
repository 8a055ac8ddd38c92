"""What the first process of a training pod does: attempts at a run, on this pod's ranks or on those of worker pods.

What the run is stands in the environment, which comes from the ConfigMap of an overlay:

    CAPSNET_RECIPE    name of a recipe
    CAPSNET_DATA      data.uri; empty: the recipe's
    CAPSNET_OUTPUT    run directory, gs://BUCKET/... or a folder
    CAPSNET_OPTIONS   options of 'capsnet train', as in a shell
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.cluster import command
from trainer.cluster.command import Parse
from trainer.config import WatchdogConfig
from trainer.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_UNEXPECTED, CapsnetError, ConfigError, note
from trainer.launch import hosts, memory_kills, mpi, supervisor
from trainer.launch.hosts import Host
from trainer.launch.verdicts import Ending, Rank
from trainer.output import attempts
from trainer.output.ledger import FOLDER, Ledger
from trainer.storage import join, make_folder

TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes shows what a container wrote there beside its exit code."""
KNOWN_HOSTS = Path("/tmp/known_hosts")
PUBLIC_KEY = Path.home() / ".ssh" / "id_rsa.pub"
SSH_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """``hostfile``: of the worker pods; without it, ``ranks`` ranks run here."""

    arguments: list[str]
    output: str
    name: str
    ranks: int
    hostfile: Path | None


def job_of(environment: Mapping[str, str], ranks: int, hostfile: Path | None, parse: Parse) -> Job:
    """Raises ConfigError, StorageRefused where something is missing or makes no sense."""
    arguments, _ = command.train(environment, parse, "CAPSNET_")
    name = environment.get("CAPSNET_JOB") or f"{socket.gethostname()}-{os.getpid()}"
    return Job(arguments, environment["CAPSNET_OUTPUT"], name, ranks, hostfile)


def run(describe: Callable[[], Job], *, several_pods: bool) -> int:
    """Makes attempts until the run is done or cannot be, and leaves the cause for Kubernetes.

    Args:
        describe: what to run; what it raises ends the job like anything else.
        several_pods: this is the launcher of an MPIJob.

    Returns:
        The exit code: 75 for a pod that is to be started again, anything else is final.
    """
    try:
        ending = _attempts(describe())
    except CapsnetError as error:  # the settings are wrong, or the ledger refuses or cannot be reached
        note(str(error))
        passes = error.exit_code == EXIT_UNEXPECTED
        ending = Ending(EXIT_INTERRUPTED if passes else error.exit_code, str(error))
    except Exception as error:
        traceback.print_exc()
        ending = Ending(EXIT_UNEXPECTED, f"{type(error).__name__}: {error}")
    leave_word(ending)
    if several_pods and ending.code not in (EXIT_DONE, EXIT_INTERRUPTED):
        from trainer.cluster import pods

        pods.end_job()
    return ending.code


def _attempts(job: Job) -> Ending:
    try:
        make_folder(join(job.output, FOLDER))
    except OSError as error:
        raise ConfigError(f"CAPSNET_OUTPUT: {job.output} cannot be made ({error.strerror}); give another") from None
    return attempts.run(Ledger(job.output), job.name, lambda requests: _attempt(job, requests))


def _attempt(job: Job, requests: list[int]) -> Ending:
    program = [sys.executable, "-m", "trainer", *job.arguments]
    if job.hostfile is None:
        return supervisor.supervise(job.ranks, program, requests=requests)
    from trainer.cluster import pods

    machines = hosts.read_hostfile(job.hostfile)
    trust_workers(machines)
    hosts.wait_for(
        machines, WatchdogConfig().start_seconds, lambda: bool(requests), note, lambda h: pods.make_way(h.pod)
    )
    names = {machine.pod: machine.name for machine in machines}
    before = pods.identities(names)
    ending = supervisor.supervise(
        sum(machine.slots for machine in machines),
        program,
        hostfile=job.hostfile,
        why_killed=lambda rank: _why_killed(rank, names[rank.host]),
        requests=requests,
    )
    lost = pods.taken_away(before) if ending.code == EXIT_INTERRUPTED and not ending.stopped else []
    if lost:
        cause = f"{', '.join(lost)} taken away; {ending.cause}"
        ending = dataclasses.replace(ending, cause=cause, stopped=True)
    return ending


def trust_workers(machines: list[Host]) -> None:
    """The operator gave one key to all pods of the job: the workers show the one that this pod has."""
    key = PUBLIC_KEY.read_text().strip()
    KNOWN_HOSTS.write_text("".join(f"[{machine.name}]:{hosts.PORT} {key}\n" for machine in machines))


def _why_killed(rank: Rank, host: str) -> str:
    """Asks the kernel of the rank's pod; where that container is gone with the rank, the kubelet."""
    from trainer.cluster import pods

    files = [str(memory_kills.CGROUP / name) for name in memory_kills.COUNTS]
    try:
        answer = subprocess.run([*mpi.SSH, host, "cat", *files], capture_output=True, text=True, timeout=SSH_SECONDS)
    except subprocess.TimeoutExpired:
        return pods.why_killed(rank.host)
    if memory_kills.counted(answer.stdout) > rank.memory_kills:
        return memory_kills.sentence(rank.memory_limit)
    return pods.why_killed(rank.host)


def leave_word(ending: Ending) -> None:
    """The one-line cause, for 'kubectl describe' and 'capsnet status'."""
    if ending.cause and TERMINATION_LOG.exists():
        try:
            TERMINATION_LOG.write_text(f"{ending.cause}\n")
        except OSError as error:
            note(f"{TERMINATION_LOG}: {error.strerror}")
