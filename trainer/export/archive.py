"""A ``.keras`` file that older versions of Keras 3 read too.

Keras writes what its newest version knows, also where it says nothing: settings that are None, and names of operations
(which stand beside them once more). Older versions stop at these. Without them 3.4 to 3.15 read the file.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

SETTINGS = "config.json"
UNSET = ("quantization_config", "input_axes", "output_axes")  # of layers since 3.13, of initializers since 3.15
OPERATIONS = "keras.src.ops."


def make_portable(path: Path) -> None:
    """Rewrites the file in place."""
    rewritten = path.with_name(f".writing-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w") as target:
        for entry in source.infolist():
            if entry.filename == SETTINGS:
                target.writestr(entry, json.dumps(_portable(json.loads(source.read(entry)))))
                continue
            with source.open(entry) as content, target.open(entry, "w", force_zip64=True) as copy:
                shutil.copyfileobj(content, copy)
    os.replace(rewritten, path)


def _portable(value: Any) -> Any:
    if isinstance(value, list):
        return [_portable(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _portable(each) for key, each in value.items() if each is not None or key not in UNSET}
    if str(kept.get("module")).startswith(OPERATIONS):
        kept["config"].pop("name", None)
    return kept
