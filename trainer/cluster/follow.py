"""Watching a run until it is over: what it waits for, its lines, why it starts again, how it ended."""

from __future__ import annotations

import time

from trainer.cluster import runs
from trainer.cluster.api import Cluster
from trainer.cluster.facts import Pod, Run
from trainer.cluster.standing import Standing, State, begins_again, restarting, standing
from trainer.errors import EXIT_UNEXPECTED, ClusterError, note
from trainer.progress import Progress

PERIOD_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
"""A cluster that does not answer for so long ends the watching, not the run."""
MARGIN_SECONDS = 30.0
"""Clocks here and there agree to less than that."""


class Reader:
    """Gives each line of a pod's log once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: dict[str, tuple[str, float]] = {}  # by pod: time of its last line, and when that was read

    def new(self, pod: Pod) -> list[tuple[str, str]]:
        """Time and text of the lines since the call before."""
        last, read = self._last.get(pod.uid, ("", 0.0))
        now = time.monotonic()
        since = now - read + MARGIN_SECONDS if last else None
        lines = [line for line in runs.log_lines(self._cluster, pod, since=since) if line[0] > last]
        if lines:
            self._last[pod.uid] = (lines[-1][0], now)
        return lines


def follow(cluster: Cluster, name: str) -> int:
    """Returns the exit code of the run.

    Raises:
        ConfigError: there is no such run, or it was deleted meanwhile.
        ClusterError: the cluster has not answered for two minutes.
    """
    reader, shown = Reader(cluster), Progress(0, 0.0, quiet=False)
    said: Standing | None = None
    before: Pod | None = None
    mark, asked_at, end = "", "", None
    silent_since = 0.0
    while True:
        try:
            run = runs.one(cluster, name)
            now = standing(run)
            if begins_again(now, mark):
                if mark != asked_at:  # one read of the ledger for each thing that happens
                    asked_at, end = mark, runs.ended_before(cluster, run) if runs.AGAIN.match(mark) else None
                now = restarting(now, end)
            lost = taken_away(before, run)
            before = runs.newest_main(run)
            if lost and not now.over:
                shown.end_line()
                print(f"{State.RESTARTING}: {lost}", flush=True)
            if now != said and now.state is not State.DONE:
                shown.end_line()
                print(_line(now), flush=True)
                said = now
            mark = _show_log(reader, run, shown) or mark
            silent_since = 0.0
        except ClusterError as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE_SECONDS:
                raise
            shown.end_line()
            note(f"{error}; asking again")
            time.sleep(PERIOD_SECONDS)
            continue
        if now.over:
            shown.end_line()
            if now.state is State.DONE:
                print(f"done: {name}", flush=True)
            return EXIT_UNEXPECTED if now.code is None else now.code
        time.sleep(PERIOD_SECONDS)


def taken_away(before: Pod | None, run: Run) -> str:
    """Of a pod that was there at the look before and has vanished without an end; empty where there is none."""
    if before is None or before.over or before.uid in {pod.uid for pod in run.pods}:
        return ""
    return f"{before.name} was taken away: deleted, preempted, or its node is gone"


def _line(now: Standing) -> str:
    return f"{now.state}: {now.cause}" if now.cause else str(now.state)


def _show_log(reader: Reader, run: Run, shown: Progress) -> str:
    """Steps as one live line where there is a terminal. Returns the mark of what was new."""
    pod = runs.newest_main(run)
    if pod is None or pod.phase == "Pending":
        return ""
    lines = [text for _, text in reader.new(pod)]
    for text in lines:
        if runs.STEP.match(text):
            shown.text(text)
        elif text:
            shown.end_line()
            print(text, flush=True)
    return runs.mark(lines)
