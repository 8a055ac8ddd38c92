"""The lines of all pods of a run, or of all ranks of an attempt at it, in the order of time, each with who said it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from trainer.cluster import runs
from trainer.cluster.api import Cluster
from trainer.cluster.facts import Pod, Run
from trainer.cluster.follow import PERIOD_SECONDS, Reader
from trainer.cluster.standing import standing
from trainer.errors import CapsnetError, ConfigError
from trainer.output import ranklog
from trainer.output.ledger import Ledger
from trainer.storage import is_cloud

T = TypeVar("T")


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
    return interleaved(prefixes(pods), found)


def interleaved(names: Mapping[T, str], found: Mapping[T, Sequence[tuple[str, str]]]) -> Iterator[str]:
    """``found``: time and text of lines, by who said them; ``names``: what those are called."""
    width = max(map(len, names.values()), default=0)
    told = ([(when, f"{names[who]:{width}} | {text}") for when, text in said] for who, said in found.items())
    return (line for _, line in heapq.merge(*told, key=lambda entry: entry[0]))


def prefixes(pods: tuple[Pod, ...]) -> dict[str, str]:
    """By pod: its role, and from the second pod in that role on a number."""
    count: dict[str, int] = {}
    names = {}
    for pod in pods:
        count[pod.role] = count.get(pod.role, 0) + 1
        names[pod.uid] = pod.role if count[pod.role] == 1 else f"{pod.role}#{count[pod.role]}"
    return names


def of_attempt(cluster: Cluster, name: str, attempt: int) -> Iterator[str]:
    """What every rank logged in one attempt, from the output, and how the attempt ended.

    Raises:
        ConfigError: there is nothing of it. ClusterError; StorageError, StorageRefused.
    """
    run = runs.one(cluster, name)
    output = runs.settings(cluster, run).output
    if not is_cloud(output):
        raise ConfigError(f"{run.name}: attempts leave logs in buckets, and its output is {output or 'not known'}")
    found = ranklog.read(output, runs.IMPATIENT)
    if attempt not in found:
        known = ", ".join(map(str, found))
        there = f"there are {known}" if known else "there are none"
        raise ConfigError(f"no log of attempt {attempt} at {output}; {there}; 'capsnet status {name}' lists attempts")
    yield from _of_ranks(found[attempt])
    end = next((each.end for each in Ledger(output, runs.IMPATIENT).attempts() if each.generation == attempt), None)
    if end is not None:
        yield f"attempt {attempt} ended at step {end.step}, exit {end.code}{': ' + end.cause if end.cause else ''}"


def _of_ranks(found: Mapping[int, ranklog.Lines]) -> Iterator[str]:
    return interleaved({rank: f"rank-{rank}" for rank in found}, found)


def _left(cluster: Cluster, run: Run) -> Iterator[str]:
    output = runs.settings(cluster, run).output
    how = standing(run)
    why = f"{run.name} ({how.state}{': ' + how.cause if how.cause else ''}) has no pod with a log"
    if not is_cloud(output):
        raise ConfigError(f"{why}; its output {output or ''} was in the pod".replace("  ", " "))
    try:
        found = ranklog.read(output, runs.IMPATIENT)
    except CapsnetError as error:
        raise ConfigError(f"{why}, and logs at {output} cannot be read from here: {error}") from None
    if not found:
        raise ConfigError(f"{why}, and no rank has stored one at {output}")
    for attempt, ranks in found.items():
        yield f"attempt {attempt}, as stored at {output}"
        yield from _of_ranks(ranks)
