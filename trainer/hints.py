"""Commands as this person would type them: through make, if that is how the run was started."""

from __future__ import annotations

import os
from pathlib import Path


def command(verb: str, path: Path | str, arguments: str = "") -> str:
    """``verb``: train, evaluate, compare or tensorboard; ``path``: a run directory, the folder of a comparison, or for
    tensorboard the folder of runs."""
    if verb == "tensorboard" and str(path).startswith("gs://"):
        return f"capsnet sync {path} runs --follow, and tensorboard --logdir runs"
    if os.environ.get("CAPSNET_FRONT") == "make":
        name = {"tensorboard": "LOGDIR", "compare": "OUTPUT"}.get(verb, "RUN")
        return f"make {verb} {name}={path}" + (f' ARGS="{arguments}"' if arguments else "")
    if verb == "tensorboard":
        return f"tensorboard --logdir {path}"
    option = {"train": "--run ", "compare": "--output "}.get(verb, "")
    return f"capsnet {verb} {option}{path} {arguments}".rstrip()
