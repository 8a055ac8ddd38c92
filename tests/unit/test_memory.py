import math
from pathlib import Path

import numpy as np
import pytest

from trainer import memory


def test_a_peak_stays_when_the_memory_is_given_back() -> None:
    before = memory.peak_mib()
    held = np.ones(2**25)  # 256 MiB, far above what the tests before it may have left free
    with_it = memory.peak_mib()
    del held
    assert with_it >= max(256, before)
    assert memory.peak_mib() >= with_it - 1  # the kernel sums up over cores late, some pages each


def test_where_the_system_does_not_tell_it_is_not_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert math.isnan(memory.peak_mib())
    (tmp_path / "none").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert memory.peak_mib() == 2.0
