"""The GPUs of this machine or container, counted without TensorFlow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

DEVICES = Path("/dev")


def count(devices: Path = DEVICES) -> int:
    """By the device files: a container has those of the GPUs that it was given, whoever mounted its driver and where.

    nvidia-smi is asked where there are none, as some drivers make them when they are first used.
    """
    files = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    if files or shutil.which("nvidia-smi") is None:
        return len(files)
    return len(names())


def names() -> list[str]:
    """What the driver calls them; none where nvidia-smi is not there or does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return re.findall(r"^GPU \d+: (.*?) \(UUID", listed.stdout, re.MULTILINE)
