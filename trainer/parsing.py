"""How all commands parse, fail and explain themselves."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from trainer.errors import EXIT_MEANINGS, ConfigError

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
