"""The loss curve of a short run, as a file that a reviewer can read.

Written anew by: CAPSNET_WRITE_GOLDEN=1 make test ARGS="tests/integration/test_golden.py"
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.harness import STEPS, losses

GOLDEN = Path(__file__).parent / "golden_losses.txt"
# Other instruction sets and thread counts add in another order; the difference grows over the updates.
TOLERANCE = 1e-3


def test_the_loss_curve_is_the_golden_one(small_run: Path) -> None:
    found = losses(small_run)
    if os.environ.get("CAPSNET_WRITE_GOLDEN"):
        GOLDEN.write_text(_HEAD + "".join(f"{step + 1:2d} {loss:.9f}\n" for step, loss in enumerate(found)))
    golden = [float(line.split()[1]) for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    assert len(golden) == STEPS
    assert found == pytest.approx(golden, rel=TOLERANCE)
    assert golden[-1] < 0.7 * golden[0]


_HEAD = """\
# step, loss: recipe sabour2017 with the small values of harness.py, seed 0, float32, one rank, one thread.
# Written on an x86-64 machine with AVX-512 (avx512f, avx512_bf16), TensorFlow 2.18.1.
"""
