"""A cell of a cost study: seconds and memory of a network's passes. ``python -m trainer.probe.cost SPEC ANSWER``.

On a CPU memory is measured first and in a process of its own, whose allocator gives back what is freed: TensorFlow's
keeps what it once had, and times under the other would be too long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from trainer.launch import gpus
from trainer.probe.watch import leave
from trainer.stopping import die_with_parent

GIVES_BACK = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def main(spec: Path, answer: Path) -> int:
    found: dict[str, object] = {}
    for what, environment in (("memory", GIVES_BACK), ("times", {})):
        if what == "memory" and gpus.count():
            continue
        command = [sys.executable, "-m", "trainer.probe.passes", what, str(spec)]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        if done.returncode:
            return done.returncode
        found |= json.loads(done.stdout.splitlines()[-1])
        if "outcome" in found:
            break
    leave(answer, **found)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
