"""How all commands parse, fail and explain themselves."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ByteSize

from trainer import config as configuration
from trainer import configs
from trainer.errors import EXIT_DONE, EXIT_MEANINGS, ConfigError
from trainer.storage import place

EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:2d}  {meaning}" for code, meaning in EXIT_MEANINGS.items())
WORDS = (
    "N,N,... is a list, and '' an empty one. A record is an image with its label, a rank one of the processes that "
    "train. A capsule's pose is its vector. A child is a capsule of one layer, a parent one of the next, in the last "
    "layer one for each class. A vote is what a child expects a parent's pose to be, a coupling the share of the child "
    "that the parent gets."
)
WIDE = 32
NARROW = 80
NAME = "NAME"
"""In place of choices that are too long for a line."""


class Parser(argparse.ArgumentParser):
    """Errors are one line and exit code 2, as for every other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see '{self.prog} --help'")

    def refuse(self, word: str) -> NoReturn:
        """Of a word that means nothing here."""
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        name = word.removeprefix("--").partition("=")[0]
        near = configuration.nearest(name, known, "--")
        if word.startswith("--"):
            self.error(f"unknown option --{name}{near}")
        if "=" in word and not word.startswith("-"):
            self.error(f"unexpected {word}; a field is given as --name value{near}")
        self.error(f"unexpected {word}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise ConfigError(
                f"unknown command {value}{configuration.nearest(value, list(action.choices))}; "
                f"'{self.prog} --help' lists all"
            )
        super()._check_value(action, value)


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
    parser.set_defaults(run_command=run, parser=parser)
    return parser


def add_group(commands: Any, name: str, help: str, epilog: str = "") -> Any:
    """A command of several commands, to which these are added; alone it prints its help."""

    def explain(parsed: argparse.Namespace) -> int:
        parsed.parser.print_help()
        return EXIT_DONE

    return add(commands, name, explain, help, epilog).add_subparsers(title="commands", metavar="COMMAND")


def add_recipe(parser: Parser) -> None:
    help = f"see 'capsnet recipes' (default: {configs.DEFAULT})"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=help)


def add_run(parser: Parser) -> None:
    parser.add_argument("run", type=place, metavar="RUN", help="run directory, or gs://BUCKET/runs/NAME")


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint", default="best", metavar="WHICH", help="best, last or a step, as 1248 (default: %(default)s)"
    )


def add_fields(parser: Parser, recipe: str, *, listed: bool = True) -> None:
    """The fields of the configuration as options, with the defaults of a recipe; ``listed``: in the help."""
    if listed:
        parser.add_argument_group(
            "fields",
            textwrap.fill(f"defaults are those of {recipe}; 'capsnet train RECIPE --help' shows others", NARROW - 2)
            + "\n\n"
            + textwrap.fill(WORDS, NARROW - 2),
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
        is_switch = bool in (field.annotation, *get_args(field.annotation))
        kind = _kind(path, field.annotation, default)
        choices = f"; one of {', '.join(_choices(field.annotation))}" if kind == NAME else ""
        groups[section].add_argument(
            f"--{path}",
            dest=f"field:{path}",
            default=None,
            metavar=kind,
            help=f"{field.description}{choices} (default: {_shown(default)})".replace("%", "%%")
            if listed
            else argparse.SUPPRESS,
            **({"nargs": "?", "const": "true"} if is_switch else {}),
        )


def _choices(annotation: Any) -> list[str]:
    """Of a Literal, or of a union with one: 'auto', true or false. Others have none."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return [str(part) for part in parts]
    named = [choice for part in parts for choice in _choices(part)]
    return [*named, "true", "false"] if named and bool in parts else named


def _kind(path: str, annotation: Any, default: Any) -> str:
    choices = _choices(annotation)
    if isinstance(default, tuple):
        return "N,N,..."
    if choices:
        whole = "{" + ",".join(choices) + "}"
        return whole if len(f"  --{path} {whole}") <= NARROW else NAME
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
