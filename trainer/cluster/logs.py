"""The lines of all pods of a run, in the order of time, each with the role of its pod."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from trainer.cluster import runs
from trainer.cluster.api import Cluster
from trainer.cluster.facts import Pod, Run
from trainer.cluster.follow import PERIOD_SECONDS, Reader
from trainer.cluster.standing import standing
from trainer.errors import CapsnetError, ConfigError
from trainer.output import streams
from trainer.storage import is_cloud

LOG = "log.txt"


def lines(cluster: Cluster, name: str, *, follow: bool) -> Iterator[str]:
    """What the pods print, and across pods that are replaced with ``follow``, to the end of the run.

    Without a pod, the log that lies at the output. Raises ClusterError, ConfigError.
    """
    run = runs.one(cluster, name)
    reader = Reader(cluster)
    seen = False
    known: dict[str, Pod] = {}  # those that are gone count in the names of those that came after them
    while True:
        over = standing(run).over
        known |= {pod.uid: pod for pod in run.pods}
        for line in merged(
            tuple(known.values()), {pod.uid: reader.new(pod) for pod in run.pods if pod.phase != "Pending"}
        ):
            seen = True
            yield line
        if over or not follow:
            break
        time.sleep(PERIOD_SECONDS)
        run = runs.one(cluster, name)
    if not seen:
        yield from _left(cluster, run)


def merged(pods: tuple[Pod, ...], found: dict[str, list[tuple[str, str]]]) -> Iterator[str]:
    """By the kubelet's times. ``pods``: the oldest first; ``found``: time and text of new lines, by pod."""
    names = prefixes(pods)
    width = max(map(len, names.values()), default=0)
    streams = (
        [(when, f"{names[uid]:{width}} | {text}") for when, text in lines_of_pod] for uid, lines_of_pod in found.items()
    )
    return (line for _, line in heapq.merge(*streams, key=lambda entry: entry[0]))


def prefixes(pods: tuple[Pod, ...]) -> dict[str, str]:
    """By pod: its role, and from the second pod in that role on a number."""
    count: dict[str, int] = {}
    names = {}
    for pod in pods:
        count[pod.role] = count.get(pod.role, 0) + 1
        names[pod.uid] = pod.role if count[pod.role] == 1 else f"{pod.role}#{count[pod.role]}"
    return names


def _left(cluster: Cluster, run: Run) -> Iterator[str]:
    output = runs.settings(cluster, run).output
    how = standing(run)
    why = f"{run.name} ({how.state}{': ' + how.cause if how.cause else ''}) has no pod with a log"
    if not is_cloud(output):
        raise ConfigError(f"{why}; its output {output or ''} was in the pod".replace("  ", " "))
    try:
        text = streams.content(output, LOG, runs.IMPATIENT).decode(errors="replace")
    except CapsnetError as error:
        raise ConfigError(f"{why}, and {LOG} at {output} cannot be read from here: {error}") from None
    yield from (f"{LOG} | {line}" for line in text.splitlines())
