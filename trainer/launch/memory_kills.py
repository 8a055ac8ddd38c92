"""What the kernel says of processes that it killed in this container for memory; nothing where there is no limit."""

from __future__ import annotations

import re
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
COUNTS = ("memory.events", "memory/memory.oom_control")
"""Of cgroup v2 and v1; both have a line ``oom_kill N``."""
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_UNLIMITED = 2**60  # cgroup v1 has a huge number where v2 says 'max'
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def count(root: Path = CGROUP) -> int:
    """Processes of this container that were killed for memory."""
    return counted("".join(_read(root / name) for name in COUNTS))


def counted(text: str) -> int:
    """The same from the text of the files."""
    return sum(int(number) for number in _COUNT.findall(text))


def limit(root: Path = CGROUP) -> int | None:
    """Bytes that this container may use."""
    found = [int(text) for name in LIMITS if (text := _read(root / name).strip()).isdigit()]
    return min((number for number in found if number < _UNLIMITED), default=None)


def sentence(limit_bytes: int | None) -> str:
    bound = f" of {limit_bytes / 2**30:.1f} GiB" if limit_bytes else ""
    return f"out of memory: killed at the container's limit{bound}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
