"""``capsnet probe job``: what the pods of a probe run."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

from trainer.cluster import command
from trainer.errors import CapsnetError, ConfigError
from trainer.launch import gpus
from trainer.parsing import EXIT_CODES, Parser, add

EPILOG = """\
What to measure stands in the environment:
  CAPSNET_STUDY         see 'capsnet probe studies'
  CAPSNET_DATA          shards; empty: those of the study
  CAPSNET_OUTPUT        of the records: gs://BUCKET/..., or a folder
  CAPSNET_OPTIONS       other options of 'capsnet probe run', as in a shell
  CAPSNET_PODS          so many share the cells; empty: this one takes all
  JOB_COMPLETION_INDEX  which of them this is, from 0

example:
  CAPSNET_STUDY=smoke CAPSNET_OUTPUT=probes/a capsnet probe job

"""


def add_job(actions: Any, run: Parser, measure: Callable[[argparse.Namespace], int]) -> None:
    """``run``, ``measure``: of 'capsnet probe run'."""
    add(
        actions,
        "job",
        functools.partial(_job, run, measure),
        "measure a pod's share of a study, as the first process of the pod",
        EPILOG + EXIT_CODES,
    )


def _job(run: Parser, measure: Callable[[argparse.Namespace], int], _parsed: argparse.Namespace) -> int:
    from trainer.cluster.launcher import leave_word
    from trainer.launch.verdicts import Ending

    try:
        if os.environ.get("CAPSNET_DEVICE") == "gpu" and not gpus.count():
            raise ConfigError(
                "a GPU was requested (CAPSNET_DEVICE=gpu) and this pod has none: look at the driver of the node, "
                "and the device plugin"
            )
        words = command.probe(os.environ, os.environ.get("JOB_COMPLETION_INDEX", "0"), "CAPSNET_")
        return measure(command.checked(words, functools.partial(_parsed_by, run), "CAPSNET_"))
    except CapsnetError as error:
        leave_word(Ending(error.exit_code, str(error)))
        raise


def _parsed_by(parser: Parser, words: list[str]) -> argparse.Namespace:
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        parser.refuse(unknown[0])
    return parsed
