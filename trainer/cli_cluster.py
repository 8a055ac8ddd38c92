"""``capsnet submit``, ``status``, ``logs`` and ``delete``: runs on Kubernetes."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import config as configuration
from trainer import configs
from trainer.cluster import command
from trainer.cluster.command import Parse
from trainer.errors import EXIT_DONE, EXIT_INTERRUPTED, ClusterError, ConfigError, note
from trainer.parsing import EXIT_CODES, Parser, add, field_values


def add_cluster(commands: Any, parse: Parse) -> None:
    """``parse``: of the commands that pods run."""
    _add_submit(commands, parse)
    _add_status(commands)
    _add_logs(commands)
    _add_delete(commands)


def _add_submit(commands: Any, parse: Parse) -> None:
    parser = add(
        commands,
        "submit",
        functools.partial(_submit, parse),
        "start a training run on Kubernetes, from an overlay of k8s/",
        "examples:\n"
        "  capsnet submit smoke --image REGISTRY/capsnet:1 --follow\n"
        "  capsnet submit cifar10-8gpu --data gs://BUCKET/cifar10 \\\n"
        "    --output gs://BUCKET/runs/a --set seed=1 --set train.epochs=40\n"
        "  # see what would be sent, checked by the cluster if there is one\n"
        "  capsnet submit smoke --dry-run\n"
        "  capsnet submit my-overlays/four-nodes      # a kustomization of your own\n\n"
        "The overlay says what runs where; image and bucket stand in k8s/site. A run\n"
        "gets a name of its own, and the last part of the output is that name. All\n"
        "is checked on the server before anything is made. Ctrl-C ends the following,\n"
        "not the run. Needs kubectl. With --follow, the exit code is that of the run.\n\n" + EXIT_CODES,
    )
    option = parser.add_argument
    option("overlay", metavar="OVERLAY", help="name of an overlay in k8s/overlays, or a path to a kustomization")
    option("--image", metavar="REF", help="image of the pods (default: that of k8s/site)")
    option("--name", metavar="NAME", help="of the run (default: the overlay's with date and time)")
    option("--set", action="append", default=[], metavar="F=V", help="a field, as train.epochs=40; may be given again")
    option("--data", metavar="URI", help="shards: gs://BUCKET/PREFIX (default: the overlay's)")
    option("--output", metavar="URI", help="run directory: gs://BUCKET/runs/NAME (default: the overlay's)")
    _add_where(parser)
    option("--dry-run", action="store_true", help="print the objects and check them, start nothing")
    option("--follow", action="store_true", help="watch the run to its end")


def _add_status(commands: Any) -> None:
    parser = add(
        commands,
        "status",
        _status,
        "list the runs on a cluster, or say how one stands and why",
        "examples:\n"
        "  capsnet status\n"
        "  capsnet status smoke-1125-171849           # pods, attempts, cause\n"
        "  capsnet status smoke-1125-171849 --follow  # to its end\n\n"
        "A Job and an MPIJob of one name are told apart as job/NAME and mpijob/NAME.\n\n" + EXIT_CODES,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a run (default: list all)")
    parser.add_argument("--follow", action="store_true", help="watch the run to its end; returns its exit code")
    _add_where(parser)


def _add_logs(commands: Any) -> None:
    parser = add(
        commands,
        "logs",
        _logs,
        "print what the pods of a run printed, in the order of time",
        "examples:\n"
        "  capsnet logs smoke-1125-171849\n"
        "  capsnet logs smoke-1125-171849 -f | grep launcher\n"
        "  capsnet logs smoke-1125-171849 --attempt 2  # all its ranks, from the bucket\n\n"
        "Each line begins with the role of its pod: train, launcher, worker-0; train#2\n"
        "is the pod that came after the first. -f goes on across pods that are replaced,\n"
        "and ends with the run. What ranks log is also stored at an output in a bucket:\n"
        "that is shown by --attempt, and where no pod is left, if it can be read from\n"
        "here.\n\n" + EXIT_CODES,
    )
    parser.add_argument("name", metavar="NAME", help="of a run; 'capsnet status' lists them")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is over")
    parser.add_argument(
        "--attempt",
        type=int,
        metavar="N",
        help="what all ranks logged in one attempt; 'capsnet status NAME' lists them",
    )
    _add_where(parser)


def _add_delete(commands: Any) -> None:
    parser = add(
        commands,
        "delete",
        _delete,
        "delete a run from a cluster; what it wrote to its output stays",
        "example:\n"
        "  capsnet delete smoke-1125-171849\n\n"
        "Deletes the Job or MPIJob with its pods, and its ConfigMap. A run that is under\n"
        "way saves a checkpoint first.\n\n" + EXIT_CODES,
    )
    parser.add_argument("name", metavar="NAME", help="of a run; 'capsnet status' lists them")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _add_where(parser)


def _add_where(parser: Parser) -> None:
    parser.add_argument("--namespace", metavar="NS", help="Kubernetes namespace (default: that of the context)")
    parser.add_argument("--context", metavar="CTX", help="of the kubeconfig (default: the current one)")


def _submit(parse: Parse, parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, runs, submission

    _interrupt_as_python_does()
    if parsed.dry_run and parsed.follow:
        raise ConfigError("--follow watches a run, and --dry-run starts none: give one of them")
    request = submission.Request(
        parsed.overlay, parsed.name, parsed.image, parsed.data, parsed.output, fields_of(parsed.set)
    )
    made = submission.prepare(request, lambda settings: check_settings(settings, parse))
    if parsed.dry_run:
        print(made.manifest, end="")
        try:
            cluster = api.connect(parsed.context, parsed.namespace)
            submission.check_on_server(made, cluster)
        except ClusterError as error:
            if not error.unreachable:
                raise
            note(f"not checked on a server: {error}")
        except api.NoClusterError as error:
            note(f"not checked on a server: {error}")
        else:
            note(f"{made.name}: the server would take it")
        return EXIT_DONE
    cluster = api.connect(parsed.context, parsed.namespace)
    cluster.check_namespace()
    for run in runs.all_runs(cluster):
        if run.name == made.name:
            raise ConfigError(f"there is a run {made.name} ({run.kind}) already; give another --name, or delete it")
    print(submission.described(made, cluster), flush=True)
    submission.check_on_server(made, cluster)
    submission.send(made, cluster)
    if parsed.follow:
        return _follow(cluster, made.name, parsed)
    print(f"\nwatch: {_again('status', made.name, parsed)} --follow")
    return EXIT_DONE


def fields_of(given: Sequence[str]) -> dict[str, str]:
    """``field=value`` by field. Raises ConfigError for what is no field."""
    known = [path for path, _ in configuration.leaves()]
    fields = {}
    for text in given:
        path, equals, value = text.removeprefix("--").partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: give field=value, as in --set train.epochs=40")
        if path not in known or path == "recipe":
            raise ConfigError(
                f"--set {text}: unknown field{configuration.nearest(path, known)}; 'capsnet train --help' lists all"
            )
        if path == "data.uri":
            raise ConfigError(f"--set {text}: give --data {value}")
        fields[path] = value
    return fields


def check_settings(settings: Mapping[str, str], parse: Parse) -> None:
    """What the pod will read is read here first. Raises ConfigError, StorageRefused where it makes no run."""
    _, parsed = command.train(settings, parse)
    configuration.with_overrides(configs.load(parsed.recipe), field_values(parsed))


def _status(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, report

    _interrupt_as_python_does()
    cluster = api.connect(parsed.context, parsed.namespace)
    if parsed.name is None:
        if parsed.follow:
            raise ConfigError("--follow needs the NAME of a run; 'capsnet status' lists them")
        print(report.listed(cluster))
        return EXIT_DONE
    if parsed.follow:
        return _follow(cluster, parsed.name, parsed)
    print(report.details(cluster, parsed.name))
    return EXIT_DONE


def _logs(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, logs

    _interrupt_as_python_does()
    if parsed.attempt is not None and parsed.follow:
        raise ConfigError("-f follows the pods, and --attempt shows what is stored: give one of them")
    cluster = api.connect(parsed.context, parsed.namespace)
    if parsed.attempt is None:
        lines = logs.lines(cluster, parsed.name, follow=parsed.follow)
    else:
        lines = logs.of_attempt(cluster, parsed.name, parsed.attempt)
    try:
        for line in lines:
            print(line, flush=True)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _delete(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, removal, runs
    from trainer.cluster.standing import standing

    _interrupt_as_python_does()
    cluster = api.connect(parsed.context, parsed.namespace)
    run = runs.one(cluster, parsed.name)
    output = runs.settings(cluster, run).output
    if not parsed.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"delete {run.name}? There is no terminal to ask on: give --yes")
        asked = f"delete {run.kind} {run.name} ({standing(run).state}) in namespace {cluster.namespace}? [y/N] "
        if input(asked).strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return EXIT_DONE
    removal.delete(cluster, run)
    stays = f"; checkpoints stay in {output}" if output.startswith("gs://") else "; its output was in its pod"
    print(f"deleted {run.kind} {run.name}{stays}")
    return EXIT_DONE


def _follow(cluster: Any, name: str, parsed: argparse.Namespace) -> int:
    from trainer.cluster import follow

    try:
        return follow.follow(cluster, name)
    except KeyboardInterrupt:
        print(file=sys.stdout)
        note(f"the run goes on; come back with: {_again('status', name, parsed)} --follow")
        return EXIT_INTERRUPTED


def _again(verb: str, name: str, parsed: argparse.Namespace) -> str:
    """A command for the same cluster as this one."""
    where = "".join(
        f" --{key} {value}" for key in ("namespace", "context") if (value := getattr(parsed, key)) is not None
    )
    return f"capsnet {verb} {name}{where}"


def _interrupt_as_python_does() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
