"""The command ``capsnet``: parses, calls, prints. TensorFlow is imported only by the commands that compute."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from trainer import (
    cli_cluster,
    cli_compare,
    cli_data,
    cli_doctor,
    cli_evaluate,
    cli_job,
    cli_predict,
    cli_probe,
    cli_sync,
    configs,
    runtime,
)
from trainer import plan as planning
from trainer.errors import EXIT_DONE, CapsnetError, ConfigError, InterruptedRun
from trainer.export.folder import FORMATS
from trainer.parsing import EXIT_CODES, Help, Parser, add, add_checkpoint, add_fields, add_recipe, add_run, field_values
from trainer.plan import Command
from trainer.stopping import StopRequest
from trainer.storage import is_cloud, local_place, place

LAUNCHED = ("train", "evaluate")
"""Commands of which several processes can be one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # failures are exceptions; the rest is TensorFlow on itself
    try:
        parsed = _parsed(arguments)
        if not hasattr(parsed, "run_command"):
            parsed.parser.print_help()
            return EXIT_DONE
        return int(parsed.run_command(parsed))
    except CapsnetError as error:
        print(f"capsnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as in 'capsnet recipes | head -1'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises ConfigError at the first word that means nothing."""
    parsed, unknown = _parser(arguments).parse_known_args(arguments)
    if unknown:
        verb = arguments[0]
        if unknown[0].partition("=")[0] == "--ranks" and verb in LAUNCHED:
            raise ConfigError(f"--ranks stands before {verb}: capsnet launch --ranks N {verb} ...")
        parsed.parser.refuse(unknown[0])
    return parsed


def _parser(arguments: Sequence[str]) -> Parser:
    parser = Parser(
        prog="capsnet",
        formatter_class=Help,
        allow_abbrev=False,
        description="Train capsule networks: on one process or many, watched in TensorBoard,\nresumed exactly.",
        epilog="first steps:\n"
        "  capsnet recipes                      what there is to train\n"
        "  capsnet train                        train the default recipe\n"
        "  capsnet launch --ranks 2 train       the same on two processes over Horovod\n"
        "  capsnet data prepare --help          shards of CIFAR-10, ImageNet or a folder\n"
        "  tensorboard --logdir runs            watch\n\n" + EXIT_CODES,
    )
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"capsnet {version('capsnet')}", help="print it")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_train(commands, arguments)
    cli_evaluate.add_evaluate(commands)
    cli_predict.add_predict(commands)
    _add_export(commands)
    _add_recipes(commands)
    cli_data.add_data(commands)
    cli_compare.add_compare(commands, arguments)
    _add_launch(commands)
    cli_job.add_job(commands, _parsed)
    cli_job.add_worker(commands)
    cli_sync.add_sync(commands)
    cli_cluster.add_cluster(commands, _parsed)
    cli_doctor.add_doctor(commands)
    cli_probe.add_probe(commands)
    return parser


def _add_train(commands: Any, arguments: Sequence[str]) -> None:
    parser = add(
        commands,
        "train",
        _train,
        "train a network, or go on with a run that was interrupted",
        "examples:\n"
        "  capsnet train quick --model.routing.iterations 2 --train.epochs 5\n"
        "  # go on where a run was; with more epochs: extend one that is finished\n"
        "  capsnet train --run runs/quick-20260101-120000 --train.epochs 40\n"
        "  # the configuration of a run once more, with another seed\n"
        "  capsnet train --from-run runs/old --seed 1\n"
        "  # what it would be: layers, parameters, memory, routing\n"
        "  capsnet train imagenet --data.uri gs://BUCKET/imagenet --dry-run\n"
        "  # learned weights for other classes\n"
        "  capsnet train RECIPE --weights-from runs/old --new-head\n\n"
        "Ctrl-C or SIGTERM finish the step, save and exit 75; a second Ctrl-C stops\n"
        "at once. A watchdog ends a run that hangs where it is started by 'capsnet\n"
        "launch', as 'make train' does.\n\n" + EXIT_CODES,
    )
    add_recipe(parser)
    parser.add_argument(
        "--run",
        type=place,
        metavar="DIR",
        help="run directory, or gs://BUCKET/...; resumed if it exists (default: a new one under runs/)",
    )
    parser.add_argument("--from-run", type=place, metavar="DIR", help="take the configuration of that run directory")
    parser.add_argument(
        "--weights-from", type=place, metavar="DIR", help="start from the newest weights in that run directory"
    )
    parser.add_argument(
        "--new-head", action="store_true", help="with --weights-from: class capsules and decoder start anew"
    )
    parser.add_argument(
        "--allow-changes", action="store_true", help="resume even where a changed field changes what the run means"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, layer by layer, with its memory; write nothing"
    )
    parser.usage = "capsnet train [RECIPE] [--run DIR] [OPTION ...] [--FIELD VALUE ...]"
    if "train" in arguments:
        after = [*arguments, ""][arguments.index("train") + 1]
        add_fields(parser, after if after in configs.names() else configs.DEFAULT)


def _add_export(commands: Any) -> None:
    parser = add(
        commands,
        "export",
        _export,
        "write a network as a Keras model and a SavedModel, for use without this package",
        "examples:\n"
        "  capsnet export runs/quick-20260101-120000 model\n"
        "  # the state at the end, and not that of the best test accuracy\n"
        "  capsnet export runs/quick-20260101-120000 model --checkpoint last\n\n"
        "DESTINATION then holds\n"
        "  model.keras      keras.models.load_model('model/model.keras')\n"
        "  saved_model.pb   tf.saved_model.load('model'), TensorFlow Serving\n"
        "  classes.json     names of the classes, by label\n"
        "  run.json         the configuration of the run\n"
        "  README.md        all this for whoever gets the folder\n\n"
        "Both models take uint8 images [B, H, W, C] as they come from a file, any B, and\n"
        "do the preprocessing of the run's tests. Both give class_scores [B, J], label\n"
        "[B], poses [B, J, Q] and, with a decoder, the reconstruction of the largest\n"
        "capsule [B, H, W, C]. The Keras model can be trained on. Each is read back and\n"
        "compared with the network before the folder appears.\n\n" + EXIT_CODES,
    )
    add_run(parser)
    parser.add_argument("destination", type=local_place, metavar="DESTINATION", help="local folder that is made")
    add_checkpoint(parser)
    parser.add_argument("--format", choices=FORMATS, default="both", help="what to write (default: %(default)s)")


def _add_recipes(commands: Any) -> None:
    add(commands, "recipes", _recipes, "list the recipes with the data, hardware, time and accuracy of each")


def _add_launch(commands: Any) -> None:
    parser = add(
        commands,
        "launch",
        _launch,
        "train or evaluate on several processes (ranks) of this machine, watched",
        "examples:\n"
        "  capsnet launch --ranks 2 train quick --train.epochs 5\n"
        "  capsnet launch --ranks 2 evaluate runs/quick-20260101-120000\n\n"
        "More than one rank needs Horovod: 'make horovod' builds it once.\n\n" + EXIT_CODES,
    )
    parser.usage = "capsnet launch [--ranks N] {train,evaluate} [ARGUMENT ...]"
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("command", choices=LAUNCHED, help="what the ranks run")
    rest = parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what that command takes")
    rest.required = False  # for argparse it is, which errors would say


def _train(parsed: argparse.Namespace) -> int:
    from trainer import rank

    command = _command(parsed)
    if parsed.dry_run:
        return _preview(command, 1)
    return rank.guarded(lambda lifeline, world: rank.train(command, lifeline, world))


def _preview(command: Command, ranks: int) -> int:
    with planning.previewed(command, ranks, print) as plan:
        runtime.import_tensorflow()
        from trainer import dry_run

        dry_run.told(plan, ranks, print)
    return EXIT_DONE


def _command(parsed: argparse.Namespace) -> Command:
    return Command(
        recipe=parsed.recipe,
        run=parsed.run,
        from_run=parsed.from_run,
        weights_from=parsed.weights_from,
        new_head=parsed.new_head,
        allow_changes=parsed.allow_changes,
        overrides=field_values(parsed),
    )


def _export(parsed: argparse.Namespace) -> int:
    from trainer.export.folder import export
    from trainer.output import copies

    stop = StopRequest()

    def say(line: str) -> None:
        stop.check()
        print(line)

    try:
        with copies.local(parsed.run, parsed.checkpoint) as run:
            shown = str(parsed.run) if is_cloud(parsed.run) else ""
            export(run, parsed.destination, parsed.checkpoint, parsed.format, say, stop.check_last, shown)
    except (Exception, KeyboardInterrupt):
        if stop.asked:  # whatever the interrupt became on its way through libraries
            raise InterruptedRun(f"{parsed.destination}: stopped, nothing was written") from None
        raise
    print(f"exported to {parsed.destination}")
    return EXIT_DONE


def _recipes(_parsed: argparse.Namespace) -> int:
    rows: list[tuple[str, ...]] = [("recipe", "data", "hardware", "time", "accuracy")]
    for name, claim in configs.claims().items():
        told = (name, configs.load(name).data.uri, claim.hardware, claim.time, claim.score)
        rows.append(tuple("-" if cell == configs.NOT_MEASURED else cell for cell in told))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        f"\ntrain one: capsnet train RECIPE (default: {configs.DEFAULT})\n"
        "embedded comes with the package; other data are shards that you make with\n"
        "'capsnet data prepare', there or elsewhere (--data.uri). -: not measured yet."
    )
    return EXIT_DONE


def _launch(parsed: argparse.Namespace) -> int:
    from trainer.launch import mpi
    from trainer.launch.supervisor import launch

    if parsed.ranks < 1:
        raise ConfigError(f"--ranks {parsed.ranks}: give 1 or more")
    command = _parsed([parsed.command, *parsed.rest])  # what is wrong there is said once, before anything starts
    if getattr(command, "dry_run", False):
        if parsed.ranks > 1:
            mpi.check_installed()
        return _preview(_command(command), parsed.ranks)
    return launch(parsed.ranks, [sys.executable, "-m", "trainer", parsed.command, *parsed.rest])
