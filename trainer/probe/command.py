"""The package's own commands, as a cell runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.stopping import die_with_parent

LAST_LINES = 2


def capsnet(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", *words]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=die_with_parent)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """How it ended, in its last words."""
    return " / ".join(done.stderr.strip().splitlines()[-LAST_LINES:]) or f"exit code {done.returncode}"


def overrides(fields: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in fields.items()]


def training_records(metrics: Path) -> list[dict[str, Any]]:
    """Those of training in a run's metrics.jsonl, in their order."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [each for each in records if each["kind"] == "train"]
