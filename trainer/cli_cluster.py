"""``capsnet submit``, ``status``, ``logs`` and ``delete``: training on a Kubernetes cluster."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import Any

from trainer import config as configuration
from trainer import configs
from trainer.config import StorageConfig
from trainer.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_UNEXPECTED, ConfigError, note
from trainer.parsing import EXIT_CODES, Parser, add, add_fields, field_values
from trainer.storage import is_cloud

WIDTH = 80
IMPATIENT = StorageConfig(deadline_seconds=5, stall_seconds=5, first_wait_seconds=0.5)
"""For what is only said beside the rest: the bucket of a cluster may be out of reach from here."""


def add_cluster(commands: Any) -> None:
    submit = add(
        commands,
        "submit",
        _submit,
        "start a training run on a cluster",
        "OVERLAY is one of those in k8s/overlays, or the folder of a kustomization over\n"
        "one. Every run gets a new name, and an output of that name.\n\n"
        "examples:\n"
        "  capsnet submit smoke --image REGISTRY/capsnet --follow\n"
        "  capsnet submit cifar10-8gpu --data gs://B/cifar10 --output gs://B/runs/wide \\\n"
        "      --set model.stem.channels=64,128,256 --set seed=1\n"
        "  capsnet submit cifar10-1gpu --dry-run        # the objects, checked by the server\n\n" + EXIT_CODES,
    )
    submit.add_argument("overlay", metavar="OVERLAY", help="what to run; see docs/kubernetes.md")
    submit.add_argument("--image", metavar="REF", help="the package's image (default: that of k8s/site)")
    submit.add_argument("--name", metavar="NAME", help="of the run (default: the overlay's and the time)")
    submit.add_argument("--data", metavar="URI", help="data.uri")
    submit.add_argument("--output", metavar="URI", help="gs://BUCKET/... (default: the overlay's, under the new name)")
    submit.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="fields", help="a field of the configuration"
    )
    submit.add_argument("--dry-run", action="store_true", help="print the objects, checked by the server")
    submit.add_argument("--follow", action="store_true", help="watch it to its end")
    status = add(commands, "status", _status, "how runs on a cluster stand, and why", EXIT_CODES)
    status.add_argument("name", nargs="?", metavar="NAME", help="one run, with its pods and attempts (default: all)")
    logs = add(commands, "logs", _logs, "what the pods of a run say, in the order of time", EXIT_CODES)
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-f", "--follow", action="store_true", help="go on to the end of the run, through restarts")
    delete = add(commands, "delete", _delete, "delete a run from a cluster; its checkpoints stay", EXIT_CODES)
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for parser in (submit, status, logs, delete):
        parser.add_argument("--namespace", "-n", metavar="NAME", help="(default: that of the context)")
        parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: the current one)")


def _submit(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, follow, overlay, state

    before = overlay.render(overlay.find(parsed.overlay))
    base = str(before.run["metadata"]["name"])
    name = overlay.check_name(parsed.name or f"{base}-{time.strftime('%m%d-%H%M%S')}")
    values = _values(before.values, base, name, parsed)
    cluster = api.connect(parsed.context, parsed.namespace)
    laid = overlay.changes(before, name, parsed.image, values, cluster.namespace)
    after = overlay.render(overlay.find(parsed.overlay), laid)
    if parsed.dry_run:
        import yaml  # type: ignore[import-untyped]

        print(yaml.safe_dump_all(after.things, sort_keys=False))
        note(overlay.apply(after.things, cluster.context, dry_run=True).strip().replace("\n", "\ncapsnet: "))
        return EXIT_DONE
    if any(run["metadata"]["name"] == name for run in cluster.runs()):
        raise ConfigError(f"there is a run {name} in namespace {cluster.namespace}; choose another --name")
    print(f"run      {name}, {after.run['kind']} in namespace {cluster.namespace} of context {cluster.context}")
    for key in ("RECIPE", "DATA", "OUTPUT", "OPTIONS"):
        if after.values.get(key):
            print(f"{key.lower():8s} {after.values[key]}")
    print(f"image    {', '.join(overlay.images_of(after.run))}")
    overlay.apply(after.things, cluster.context, dry_run=False)
    if not is_cloud(after.values["OUTPUT"]):
        note(f"{after.values['OUTPUT']}: what the run leaves is gone with its pod; --output gs://... keeps it")
    where = f"{f' --context {parsed.context}' if parsed.context else ''}" + (
        f" --namespace {parsed.namespace}" if parsed.namespace else ""
    )
    if not parsed.follow:
        print(f"watch:   capsnet status {name}{where}\nlogs:    capsnet logs -f {name}{where}")
        return EXIT_DONE
    try:
        end = follow.follow(cluster, name, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        note(f"{name} goes on; watch it again with 'capsnet logs -f {name}{where}'")
        return EXIT_INTERRUPTED
    if end.state == state.DONE:
        print(follow.result(cluster, name))
    return EXIT_DONE if end.state == state.DONE else EXIT_UNEXPECTED


def _values(given: dict[str, str], base: str, name: str, parsed: argparse.Namespace) -> dict[str, str]:
    """What the ConfigMap of the run says. Raises ConfigError for fields that the recipe would refuse."""
    values = dict(given)
    head, _, last = values["OUTPUT"].rpartition("/")
    values["OUTPUT"] = parsed.output or (f"{head}/{name}" if last == base else values["OUTPUT"])
    if parsed.data is not None:
        values["DATA"] = parsed.data
    for each in parsed.fields:
        if "=" not in each:
            raise ConfigError(f"--set {each}: give FIELD=VALUE")
    words = [*shlex.split(values.get("OPTIONS", "")), *(f"--{each}" for each in parsed.fields)]
    values["OPTIONS"] = shlex.join(words)
    fields = Parser("capsnet submit --set")
    add_fields(fields, values["RECIPE"] if values["RECIPE"] in configs.names() else configs.DEFAULT, listed=False)
    known, unknown = fields.parse_known_args(words)
    if unknown:
        raise ConfigError(f"{unknown[0]}: no field of the configuration; 'capsnet train --help' lists them")
    configuration.with_overrides(configs.load(values["RECIPE"]), field_values(known))
    return values


def _status(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, follow, state

    cluster = api.connect(parsed.context, parsed.namespace)
    runs = cluster.runs()
    if parsed.name:
        runs = [api.find(runs, parsed.name, cluster)]
    if not runs:
        print(f"no runs in namespace {cluster.namespace} of context {cluster.context}")
        return EXIT_DONE
    seen = [(run, *follow.look(cluster, run)) for run in runs]
    width = max(4, *(len(now.name) for _, now, _ in seen))
    print(f"{'NAME':{width}s}  STATE       AGE   WHY")
    for run, now, pods in seen:
        why = now.why or (follow.progress(cluster, pods) if now.state == state.RUNNING else "")
        line = f"{now.name:{width}s}  {now.state:10s}  {_age(now.age_seconds):4s}  {why}"
        print(line if parsed.name or len(line) <= WIDTH else f"{line[: WIDTH - 3]}...")
        if parsed.name:
            _say_more(cluster, run, pods)
    return EXIT_DONE


def _say_more(cluster: Any, run: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    """Pods, what was only written to events, and the attempts of the ledger, where it can be read from here."""
    from trainer.cluster import api, state
    from trainer.errors import CapsnetError
    from trainer.output.ledger import Ledger

    for pod in pods:
        word = state.end_of(pod) or state.waits_for(pod)
        print(f"  pod {pod['metadata']['name']}  {pod['status'].get('phase', '')}{f'  {word}' if word else ''}")
    for warning in dict.fromkeys(cluster.warnings(run["metadata"]["name"])):
        print(f"  event {warning}")
    try:
        output = cluster.config_map(run).get("OUTPUT", "")
        attempts = Ledger(output, IMPATIENT).attempts() if is_cloud(output) else []
    except (api.NotThere, CapsnetError) as error:
        print(f"  attempts: not read from here ({error})")
        return
    for attempt in attempts:
        end = attempt.end
        told = f"exit {end.code}, checkpoint of step {end.step}; {end.cause}" if end else "no end"
        print(f"  attempt {attempt.generation}, from step {max(0, attempt.step)}: {told}")
    print(f"  output {output}")


def _logs(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api, follow

    cluster = api.connect(parsed.context, parsed.namespace)
    if parsed.follow:
        try:
            for line in follow.follow_logs(cluster, parsed.name):
                print(line, flush=True)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        return EXIT_DONE
    lines = follow.logs(cluster, parsed.name)
    if not lines:
        lines = _stored_log(cluster, parsed.name)
    print("\n".join(lines))
    return EXIT_DONE


def _stored_log(cluster: Any, name: str) -> list[str]:
    """The log at the run's output: pods take theirs with them."""
    from trainer.cluster import api
    from trainer.output import streams
    from trainer.storage import read_range

    output = cluster.config_map(api.find(cluster.runs(), name, cluster)).get("OUTPUT", "")
    stored = streams.newest(output) if is_cloud(output) else None
    parts = stored.parts.get("log.txt", ()) if stored else ()
    text = b"".join(read_range(location, 0, entry.bytes, entry=entry) for location, entry in parts)
    return text.decode(errors="replace").splitlines()


def _delete(parsed: argparse.Namespace) -> int:
    from trainer.cluster import api

    cluster = api.connect(parsed.context, parsed.namespace)
    runs = cluster.runs()
    run = api.find(runs, parsed.name, cluster)
    try:
        output = cluster.config_map(run).get("OUTPUT", "")
    except api.NotThere:
        output = ""
    if not parsed.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"delete {parsed.name}: nobody to ask; say --yes")
        if input(f"delete {parsed.name} and its pods? [y/N] ").strip().lower() not in ("y", "yes"):
            return EXIT_DONE
    cluster.delete(run)
    used = [api.config_map_of(other) for other in runs if other is not run]
    own = api.config_map_of(run)
    if own and own not in used:
        cluster.delete_config_map(own)
    kept = f"; what it saved stays at {output}" if is_cloud(output) else ""
    print(f"deleted {parsed.name}{kept}")
    return EXIT_DONE


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
