"""``capsnet doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import textwrap
from typing import Any

from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED, ConfigError
from trainer.parsing import add
from trainer.storage import is_cloud

WIDTH, INDENT = 80, 22


def add_doctor(commands: Any) -> None:
    parser = add(
        commands,
        "doctor",
        _doctor,
        "check this installation, and say what to do where something is missing",
        "example:\n"
        "  capsnet doctor --uri gs://BUCKET/cifar10 --write gs://BUCKET/runs\n\n"
        "Python, cores, memory, disk, TensorFlow and GPUs, Horovod and how it was built,\n"
        "two real ranks, credentials. What could crash is tried in processes of its own,\n"
        "so that there is always an answer. Nothing is changed; --write makes a small\n"
        "object and removes it.\n\n"
        "exit codes:\n   0  nothing is in the way\n   1  a problem, with its mend",
    )
    parser.add_argument("--uri", metavar="URI", help="a place in a bucket that should be readable")
    parser.add_argument("--write", metavar="URI", help="a folder or place in a bucket that should be writable")
    parser.add_argument("--no-ranks", action="store_true", help="do not start two ranks")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(parsed: argparse.Namespace) -> int:
    from trainer.doctor import cloud, libraries, machine
    from trainer.doctor.finding import PROBLEM, Finding

    if parsed.uri is not None and not is_cloud(parsed.uri):
        raise ConfigError(f"--uri {parsed.uri}: give gs://BUCKET/...")
    found: list[Finding] = []
    checks = (
        machine.check(),
        libraries.check(ranks=not parsed.no_ranks),
        cloud.check(parsed.uri, parsed.write),
        cloud.tools(),
    )
    for finding in itertools.chain(*checks):
        found.append(finding)
        if not parsed.json:
            print(_line(finding.level, finding.name, finding.said), flush=True)
            if finding.mend:
                print(_indented(f"-> {finding.mend}"), flush=True)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    problems = sum(finding.level == PROBLEM for finding in found)
    if not parsed.json:
        print(f"\n{problems} problem{'s' if problems != 1 else ''}" if problems else "\nnothing is in the way")
    return EXIT_UNEXPECTED if problems else EXIT_DONE


def _line(level: str, name: str, said: str) -> str:
    return f"{level:9s}{name:13s}{_indented(said).lstrip()}"


def _indented(text: str) -> str:
    margin = " " * INDENT
    return textwrap.fill(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
