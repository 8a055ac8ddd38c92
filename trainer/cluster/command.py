"""What a run is, as a ConfigMap of an overlay and the environment of its pods say it, as a command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping

from trainer.errors import ConfigError
from trainer.storage import place

Parse = Callable[[list[str]], argparse.Namespace]
"""Of the words after ``capsnet``. Raises ConfigError."""


def train(settings: Mapping[str, str], parse: Parse, prefix: str = "") -> tuple[list[str], argparse.Namespace]:
    """The words of 'capsnet train' for a run, and what they were parsed to.

    Args:
        settings: RECIPE, DATA, OUTPUT and OPTIONS, each with ``prefix`` before it.

    Raises:
        ConfigError, StorageRefused: something is missing or makes no sense.
    """
    recipe, data, output = (settings.get(f"{prefix}{key}", "") for key in ("RECIPE", "DATA", "OUTPUT"))
    if not recipe or not output:
        raise ConfigError(f"{prefix}{'OUTPUT' if recipe else 'RECIPE'} is not set; see 'capsnet job --help'")
    where = place(output)
    given = options(settings, prefix)
    words = ["train", recipe, *(["--data.uri", data] if data else []), "--run", output, *given]
    try:
        parsed = parse(words)
    except ConfigError as error:
        raise ConfigError(f"{prefix}OPTIONS: {error}") from None
    except SystemExit:
        raise ConfigError(f"{prefix}OPTIONS: --help trains nothing; leave it out") from None
    if parsed.dry_run:
        raise ConfigError(f"{prefix}OPTIONS: --dry-run trains nothing; leave it out")
    if parsed.run != where:
        raise ConfigError(f"{prefix}OPTIONS: --run {parsed.run}: the output is {prefix}OUTPUT, and that is {output}")
    return words, parsed


def options(settings: Mapping[str, str], prefix: str = "") -> list[str]:
    """Raises ConfigError where a shell would not take them."""
    try:
        return shlex.split(settings.get(f"{prefix}OPTIONS", ""))
    except ValueError as error:
        raise ConfigError(f"{prefix}OPTIONS: {error}") from None
