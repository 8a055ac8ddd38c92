"""What a run is, as a ConfigMap of an overlay and the environment of its pods say it, as a command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping

from trainer.errors import ConfigError
from trainer.storage import place

Parse = Callable[[list[str]], argparse.Namespace]
"""Of the words of a command. Raises ConfigError."""


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
    parsed = checked(words, parse, prefix)
    if parsed.dry_run:
        raise ConfigError(f"{prefix}OPTIONS: --dry-run trains nothing; leave it out")
    if parsed.run != where:
        raise ConfigError(f"{prefix}OPTIONS: --run {parsed.run}: the output is {prefix}OUTPUT, and that is {output}")
    return words, parsed


def probe(settings: Mapping[str, str], index: str, prefix: str = "") -> list[str]:
    """The words after 'capsnet probe run' for one pod of those that share a study.

    Args:
        settings: STUDY, DATA, OUTPUT, OPTIONS and PODS, each with ``prefix`` before it.
        index: of the pod, from 0.

    Raises:
        ConfigError: something is missing or makes no sense.
    """
    study, data, output = (settings.get(f"{prefix}{key}", "") for key in ("STUDY", "DATA", "OUTPUT"))
    if not study or not output:
        raise ConfigError(f"{prefix}{'OUTPUT' if study else 'STUDY'} is not set; see 'capsnet probe job --help'")
    shard = f"{index}/{settings.get(f'{prefix}PODS') or 1}"
    given = options(settings, prefix)
    return [study, *given, *(["--data", data] if data else []), "--output", output, "--shard", shard]


def checked(words: list[str], parse: Parse, prefix: str = "") -> argparse.Namespace:
    """Raises ConfigError where an option of them means nothing, or is for people."""
    try:
        return parse(words)
    except ConfigError as error:
        raise ConfigError(f"{prefix}OPTIONS: {error}") from None
    except SystemExit:
        raise ConfigError(f"{prefix}OPTIONS: --help does nothing else; leave it out") from None


def options(settings: Mapping[str, str], prefix: str = "") -> list[str]:
    """Raises ConfigError where a shell would not take them."""
    try:
        return shlex.split(settings.get(f"{prefix}OPTIONS", ""))
    except ValueError as error:
        raise ConfigError(f"{prefix}OPTIONS: {error}") from None
