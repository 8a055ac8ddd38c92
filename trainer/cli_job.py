"""``capsnet job`` and ``capsnet worker``: what the pods of a training job run."""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any

from trainer.cluster.command import Parse
from trainer.errors import ConfigError
from trainer.launch import gpus
from trainer.parsing import EXIT_CODES, add
from trainer.storage import local_place

AUTO = "auto"


def add_job(commands: Any, parse: Parse) -> None:
    """``parse``: of the commands that the job runs."""
    parser = add(
        commands,
        "job",
        functools.partial(_job, parse),
        "train as the first process of a pod: attempts until the run is done",
        "What to train stands in the environment:\n"
        "  CAPSNET_RECIPE   see 'capsnet recipes'\n"
        "  CAPSNET_DATA     data.uri; empty: that of the recipe\n"
        "  CAPSNET_OUTPUT   run directory: gs://BUCKET/runs/NAME, or a folder\n"
        "  CAPSNET_OPTIONS  any options of 'capsnet train', as in a shell\n\n"
        "example:\n"
        "  CAPSNET_RECIPE=quick CAPSNET_OUTPUT=runs/a capsnet job --ranks 2\n\n"
        "An attempt that is interrupted (a rank that was killed, a worker that was\n"
        "preempted) is made again from the last checkpoint. The same failure three times\n"
        "at the same checkpoint ends the run. The ledger of attempts lies at the output,\n"
        "and keeps a second job off it. SIGTERM saves and ends with 75.\n\n" + EXIT_CODES,
    )
    parser.add_argument(
        "--ranks", default=AUTO, metavar="N", help="processes in this pod (default: one for each GPU, or 1)"
    )
    parser.add_argument(
        "--hostfile", type=local_place, metavar="FILE", help="Open MPI's: train on the worker pods that it names"
    )


def add_worker(commands: Any) -> None:
    add(
        commands,
        "worker",
        _worker,
        "serve as a worker pod of a job over several pods",
        "Runs sshd on port 2222 with the keys that the MPI Operator mounts. On SIGTERM\n"
        "the ranks of this pod save and leave before it ends with 75.\n\n" + EXIT_CODES,
    )


def _job(parse: Parse, parsed: argparse.Namespace) -> int:
    from trainer.cluster import launcher

    return launcher.run(
        lambda: launcher.job_of(os.environ, _ranks(parsed.ranks), parsed.hostfile, parse),
        several_pods=parsed.hostfile is not None,
    )


def _worker(_parsed: argparse.Namespace) -> int:
    from trainer.launch.worker import serve

    return serve()


def _ranks(given: str) -> int:
    """Raises ConfigError for what is not a number of processes."""
    if given == AUTO:
        return max(1, gpus.count())
    if not given.isdigit() or int(given) < 1:
        raise ConfigError(f"--ranks {given}: give 1 or more, or {AUTO}")
    return int(given)
