"""How much memory this process needed."""

from __future__ import annotations

import math
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """The most that was resident at any time, VmHWM, in MiB; not a number where the system does not tell.

    Not ``ru_maxrss``: that of a new program begins with what its parent needed.
    """
    try:
        text = STATUS.read_text()
    except OSError:
        return math.nan
    kib = [int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM:")]
    return kib[0] / 1024 if kib else math.nan
