"""How all commands parse, fail and explain themselves."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import ByteSize

from trainer import config as configuration
from trainer import configs
from trainer.errors import EXIT_MEANINGS, ConfigError
from trainer.storage import Location, is_cloud

EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:2d}  {meaning}" for code, meaning in EXIT_MEANINGS.items())
WIDE = 32
NARROW = 80


class Parser(argparse.ArgumentParser):
    """Errors are one line and exit code 2, as for every other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see '{self.prog} --help'")


class Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=WIDE, width=min(100, _columns()))


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        return NARROW


def add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = "") -> Parser:
    parser: Parser = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(help[0].upper() + help[1:] + ".", NARROW),
        epilog=epilog,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(run_command=run)
    return parser


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last or a step (default: best)")


def location(text: str) -> Location:
    """A folder or a place in a bucket, of an argument."""
    return text.rstrip("/") if is_cloud(text) else Path(text)


def add_fields(parser: Parser, recipe: str, *, listed: bool = True) -> None:
    """The fields of the configuration as options, with the defaults of a recipe; ``listed``: in the help."""
    if listed:
        parser.add_argument_group(
            "fields", f"defaults are those of recipe {recipe}; 'capsnet train RECIPE --help' shows others"
        )
    groups: dict[str, Any] = {}
    defaults = configs.load(recipe)
    for path, field in configuration.leaves():
        if path == "recipe":
            continue
        section = path.rpartition(".")[0] or "run"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        default = configuration.value_at(defaults, path)
        is_switch = isinstance(default, bool)
        groups[section].add_argument(
            f"--{path}",
            dest=f"field:{path}",
            default=None,
            metavar=_kind(field.annotation, default),
            help=f"{field.description} (default: {_shown(default)})".replace("%", "%%")
            if listed
            else argparse.SUPPRESS,
            **({"nargs": "?", "const": "true"} if is_switch else {}),
        )


def _kind(annotation: Any, default: Any) -> str:
    choices = [str(choice) for choice in get_args(annotation)]
    if isinstance(default, tuple):
        return "N,N,..."
    if choices:
        return "{" + ",".join(choices) + "}"
    return {"int": "N", "float": "X", "str": "TEXT", "bool": "true|false", "ByteSize": "SIZE"}[annotation.__name__]


def _shown(value: Any) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable(separator="")
    if value == "":
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def field_values(parsed: argparse.Namespace) -> dict[str, str]:
    """The fields that were given, as typed, by path."""
    return {
        name.removeprefix("field:"): value
        for name, value in vars(parsed).items()
        if name.startswith("field:") and value is not None
    }
