"""Watching a run: its state as it changes, its progress, its logs through pods that come and go."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from trainer.cluster import state
from trainer.cluster.api import Cluster, Thing, find
from trainer.cluster.state import State

LOOK_SECONDS = 2.0
SAY_SECONDS = 10.0
TAIL_LINES = 20
ORDER_SECONDS = 1.0
"""Lines of several pods are put in the order of their times where they come within so much of each other."""


def look(cluster: Cluster, run: Thing) -> tuple[State, list[Thing]]:
    """How a run stands, and its pods."""
    pods = cluster.pods(run)
    warnings = [] if pods else cluster.warnings(run["metadata"]["name"])
    return state.state_of(run, pods, warnings, state.utc_now()), pods


def progress(cluster: Cluster, pods: list[Thing]) -> str:
    """What the pod that leads says last of step, loss, images/s and ETA."""
    running = [pod for pod in state.leading(pods) if pod["status"].get("phase") == "Running"]
    return state.progress_in(cluster.log(running[-1]["metadata"]["name"], tail_lines=TAIL_LINES)) if running else ""


def follow(cluster: Cluster, name: str, say: Callable[[str], None]) -> State:
    """Says what changes until the run is over, and how it ended."""
    told, said_at = "", 0.0
    while True:
        now, pods = look(cluster, find(cluster.runs(), name, cluster))
        line = f"{now.state}{f': {now.why}' if now.why else ''}"
        if line != told:
            say(f"{name} {line}")
            told = line
        if now.state in state.OVER:
            return now
        if now.state == state.RUNNING and time.monotonic() - said_at > SAY_SECONDS:
            step = progress(cluster, pods)
            if step:
                say(f"{name} {step}")
                said_at = time.monotonic()
        time.sleep(LOOK_SECONDS)


def result(cluster: Cluster, name: str) -> str:
    """The line of a finished run that says its score; '' where its log is gone."""
    pods = state.leading(cluster.pods(find(cluster.runs(), name, cluster)))
    lines = cluster.log(pods[-1]["metadata"]["name"], tail_lines=TAIL_LINES).splitlines() if pods else []
    return next((line for line in lines if line.startswith("test accuracy")), "")


def logs(cluster: Cluster, name: str) -> list[str]:
    """What all pods of a run have said, in the order of time, each line behind the role of its pod."""
    pods = cluster.pods(find(cluster.runs(), name, cluster))
    lines = []
    for pod in pods:
        for line in cluster.log(pod["metadata"]["name"], timestamps=True).splitlines():
            when, _, text = line.partition(" ")
            lines.append((when, state.role_of(pod), text))
    return [f"{role} | {text}" for _, role, text in sorted(lines)]


def follow_logs(cluster: Cluster, name: str) -> Iterator[str]:
    """As ``logs``, and on until the run is over, also from pods that are made meanwhile."""
    arrived: queue.Queue[tuple[str, str, str]] = queue.Queue()
    threads: dict[str, threading.Thread] = {}
    seen: dict[str, str] = {}

    def read(pod: Thing) -> None:
        name = pod["metadata"]["name"]
        for line in cluster.follow(name):
            when, _, text = line.partition(" ")
            if when > seen.get(pod["metadata"]["uid"], ""):
                seen[pod["metadata"]["uid"]] = when
                arrived.put((when, state.role_of(pod), text))

    def waiting() -> Iterator[str]:
        lines = []
        while not arrived.empty():
            lines.append(arrived.get())
        yield from (f"{role} | {text}" for _, role, text in sorted(lines))

    while True:
        now, pods = look(cluster, find(cluster.runs(), name, cluster))
        for pod in pods:
            uid = pod["metadata"]["uid"]
            idle = uid not in threads or (not threads[uid].is_alive() and pod["status"].get("phase") == "Running")
            if idle and pod["status"].get("phase") != "Pending":
                threads[uid] = threading.Thread(target=read, args=(pod,), daemon=True)
                threads[uid].start()
        time.sleep(ORDER_SECONDS)
        if now.state in state.OVER:
            for thread in threads.values():
                thread.join(timeout=LOOK_SECONDS)
            yield from waiting()
            return
        yield from waiting()
