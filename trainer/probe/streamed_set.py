"""What a study of data streams: its settings, and the shards that are made for it. Knows nothing of TensorFlow."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from trainer.errors import EXIT_DONE, ConfigError, DataError
from trainer.probe.command import capsnet, said
from trainer.probe.photographs import photographs

CLASSES, TESTED = 10, 20
WIDTH, HEIGHT, DIFFERENT = 320, 240, 64
DEFAULTS = {"images": "2048", "shards": "64", "mbit": "400", "latency_ms": "20", "rounds": "3", "uri": ""}
"""Settings. ``uri``: a prepared set in a real bucket, in place of shards that are made and of the simulated link; of it
no more than ``images`` are read at a time."""


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """All settings. Raises ConfigError where one is unknown or no number that it can be."""
    settings, unknown = {**DEFAULTS, **given}, given.keys() - DEFAULTS.keys()
    if unknown:
        raise ConfigError(f"probe.{min(unknown)}: no such setting; there are {', '.join(DEFAULTS)}")
    for name in ("images", "shards", "rounds"):
        if not settings[name].isdigit() or int(settings[name]) < 1:
            raise ConfigError(f"probe.{name} {settings[name]}: give 1 or more")
    for name, least in (("mbit", 1e-3), ("latency_ms", 0.0)):
        try:
            fits = float(settings[name]) >= least
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(f"probe.{name} {settings[name]}: give a number of at least {least:g}")
    return settings


def prepared(folder: Path, images: int, shards: int) -> Path:
    """The folder of the shards. Raises DataError with what ``capsnet data prepare`` says."""
    source, made, encoded = folder / "photographs.zip", folder / "shards", photographs(DIFFERENT, WIDTH, HEIGHT)
    with zipfile.ZipFile(source, "w") as archive:
        for split, count in (("train", images), ("test", TESTED)):
            for number in range(count):
                name = f"{split}/class{number % CLASSES}/{number:06d}.jpg"
                archive.writestr(name, encoded[number % DIFFERENT])
    done = capsnet("data", "prepare", str(source), str(made), "--shards", f"train={shards},test=1")
    if done.returncode != EXIT_DONE:
        raise DataError(said(done))
    return made
