"""Commands as this person would type them: through make, if that is how the run was started."""

from __future__ import annotations

import os
from pathlib import Path


def command(verb: str, path: Path | str, arguments: str = "") -> str:
    """``verb``: train, evaluate or tensorboard; ``path``: a run directory, or for tensorboard the folder of runs."""
    if os.environ.get("CAPSNET_FRONT") == "make":
        name = "LOGDIR" if verb == "tensorboard" else "RUN"
        return f"make {verb} {name}={path}" + (f' ARGS="{arguments}"' if arguments else "")
    if verb == "tensorboard":
        return f"tensorboard --logdir {path}"
    return f"capsnet {verb} {'--run ' if verb == 'train' else ''}{path} {arguments}".rstrip()
