"""What a person asks of ``capsnet evaluate``, and whether it can be had."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer import config as configuration
from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.storage import Location

TestName = Literal["test", "affine", "overlap"]
TESTS: tuple[TestName, ...] = ("test", "affine", "overlap")
"""The test split as it is, under random affine maps, and in pairs."""


def config_for(config: RunConfig, test: TestName) -> RunConfig:
    """A run's configuration with another test set made of the same records.

    affine: each image under a random affine map within ``STANDARD_AFFINE``. overlap: each record under one of another
    class; right where the two most active classes are both right (Sabour et al. 2017, section 6). Without a shift: a
    scene in which both are shifted needs a canvas that is larger than the images, and the network's is of their size.

    Raises:
        ConfigError: this network cannot be tested so.
    """
    if test == "test":
        return config
    if why := _why_not(config, test):
        raise ConfigError(f"--{test}: {why}: leave --{test} out")
    if test == "affine":
        return configuration.with_overrides(
            config, {f"data.affine.{name}": bound for name, bound in configuration.STANDARD_AFFINE}
        )
    pairs = {"data.overlap.enabled": True, "data.overlap.shift": 0, "data.augment.shift": 0}
    pairs |= {f"data.affine.{name}": 0 for name, _ in configuration.STANDARD_AFFINE}
    knows_pairs = {"loss.kind": "cross_entropy"} if config.loss.kind == "spread" else {}
    return configuration.with_overrides(config, {**pairs, **knows_pairs})


def _why_not(config: RunConfig, test: TestName) -> str:
    if config.data.overlap.enabled:
        return "this run was trained on pairs, and pairs are its test set"
    if test == "overlap" and config.model.classes == 2:
        return "of two classes both are in every pair"
    if test == "overlap" and config.data.rotations > 1:
        return "its classes are angles too, and the images of a pair are not turned"
    return ""


def tests_of(config: RunConfig) -> tuple[TestName, ...]:
    """All that a run's network can be tested on."""
    return tuple(test for test in TESTS if test == "test" or not _why_not(config, test))


@dataclass(frozen=True)
class Request:
    """``run`` is what is read, ``place`` what a person calls it: the same, or a run in a bucket.

    ``data`` and ``split``: others than the run's own. ``tests``: of ``TESTS``; none: all that the network can be
    tested on. ``json_file``: gets the score. ``plot_folder``: gets calibration and confusion as PNG.
    """

    run: Path
    place: Location
    checkpoint: str = "best"
    data: str | None = None
    split: str | None = None
    tests: Sequence[str] = ("test",)
    json_file: Path | None = None
    plot_folder: Path | None = None

    @property
    def beside(self) -> str:
        """Is added to the names of what is written where not the run's own test split is scored."""
        parts = [self.data and self.data.rstrip("/").rpartition("/")[2], self.split]
        return "".join(f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', part)}" for part in parts if part)

    def configured(self, config: RunConfig) -> RunConfig:
        """A run's configuration with the data that is asked for."""
        overrides: dict[str, object] = {"data.uri": self.data, "data.test_split": self.split}
        return configuration.with_overrides(config, {key: value for key, value in overrides.items() if value})

    def chosen(self, config: RunConfig) -> list[TestName]:
        """The tests in their order. Raises ConfigError where the network cannot be tested so."""
        found = [test for test in TESTS if test in self.tests] or list(tests_of(config))
        for test in found:
            config_for(config, test)
        return found

    def check(self) -> None:
        """Before anything is computed. Raises ConfigError where a file could not be written."""
        for option, folder in (("--json", self.json_file and self.json_file.parent), ("--plots", self.plot_folder)):
            if folder is not None:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise ConfigError(f"{option} {folder}: cannot be made ({error.strerror})") from None
        if self.json_file is not None and self.json_file.is_dir():
            raise ConfigError(f"--json {self.json_file}: is a folder; name a file")
