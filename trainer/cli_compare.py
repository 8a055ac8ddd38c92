"""The command ``capsnet compare``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any

from trainer import configs
from trainer.compare import arms
from trainer.compare.plan import SEEDS, Request
from trainer.parsing import EXIT_CODES, NARROW, add, add_fields, add_recipe, field_values
from trainer.storage import local_place


def add_compare(commands: Any, arguments: Sequence[str]) -> None:
    """Adds the command; its fields only where it is the one that was typed."""
    parser = add(
        commands,
        "compare",
        _compare,
        "train routing algorithms and controls under one budget, and tabulate accuracy and cost",
        "examples:\n"
        "  capsnet compare quick --routing dynamic,uniform,first --seeds 3\n"
        "  # crowded scenes as well; what will run, without running it\n"
        "  capsnet compare quick --overlap --dry-run\n"
        "  # arms of one's own; the same for all arms\n"
        "  capsnet compare quick --epochs 4 --optimizer.learning_rate 0.002 \\\n"
        "    --routing dynamic,five:model.routing.iterations=5\n"
        "  # go on after Ctrl-C, or add arms or seeds to what is there\n"
        "  capsnet compare --output runs/compare-quick-20260101-120000 --seeds 5\n\n"
        "arms:\n"
        + "".join(f"{_filled(what, ', '.join(names))}\n" for what, names in arms.kinds().items())
        + _filled("of one's own", "NAME:field=value,field=value")
        + "\nuniform and random couplings are controls too; first: the first iteration alone;\n"
        "conv_...: a convolution as large, or as costly, as the capsules; a recipe: its\n"
        "network, loss and optimizer, on the data and the budget of RECIPE.\n\n"
        "Every field of the configuration is an option, as of 'capsnet train', and counts\n"
        "for all arms. A run that diverges is a result and is shown as such.\n\n" + EXIT_CODES,
    )
    parser.usage = "capsnet compare [RECIPE] [OPTION ...] [--FIELD VALUE ...]"
    option = parser.add_argument
    add_recipe(parser)
    option(
        "--routing",
        action="append",
        default=[],
        metavar="ARM,...",
        help="what is compared: arms, see below (default: all but recipes)",
    )
    option("--seeds", type=int, metavar="N", help=f"train each arm with seeds 0 to N - 1 (default: {SEEDS})")
    option("--epochs", metavar="X", help="length of every run (default: the recipe's train.epochs)")
    option("--overlap", action="store_true", help="train and test each arm on crowded scenes as well")
    option(
        "--output",
        type=local_place,
        metavar="DIR",
        help="folder; gone on with if it exists (default: a new one in runs/)",
    )
    option("--dry-run", action="store_true", help="list what will run, and train nothing")
    if arguments[:1] == ["compare"]:
        add_fields(parser, configs.DEFAULT, listed=False)


def _filled(what: str, text: str) -> str:
    return textwrap.fill(text, NARROW, initial_indent=f"  {what:14s}", subsequent_indent=" " * 16)


def _compare(parsed: argparse.Namespace) -> int:
    from trainer.compare.run import compare

    fields = field_values(parsed)
    if parsed.epochs is not None:
        fields["train.epochs"] = parsed.epochs
    request = Request(parsed.recipe, parsed.routing, parsed.seeds, fields, parsed.overlap)
    return compare(request, parsed.output, parsed.dry_run)
