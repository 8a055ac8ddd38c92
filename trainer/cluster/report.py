"""What ``capsnet status`` prints."""

from __future__ import annotations

import textwrap
import time

from trainer.cluster import runs
from trainer.cluster.api import Cluster
from trainer.cluster.facts import Pod, Run
from trainer.cluster.runs import History, Settings
from trainer.cluster.standing import Standing, State, begins_again, restarting, standing, waits_for, why_ended
from trainer.output.ledger import Attempt, stops_in_vain

COLUMNS = 80
EVENTS = 5
TOLD = ("PodFailurePolicy", "FailedScheduling", "Failed", "BackOff")
"""Reasons of warnings that the state of a pod tells as well."""


def listed(cluster: Cluster) -> str:
    """A line for each run, the newest first, within 80 columns."""
    found = runs.all_runs(cluster)
    if not found:
        cluster.check_namespace()
        return f"no runs in namespace {cluster.namespace} of context {cluster.context}; 'capsnet submit --help'"
    return table([(run, *_seen(cluster, run)) for run in reversed(found)], time.time())


def table(rows: list[tuple[Run, Standing, str]], now: float) -> str:
    """``rows``: run, standing and line with its step."""
    width = min(30, max(4, *(len(run.name) for run, _, _ in rows)))
    lines = [f"{'name':{width}}  {'kind':6}  {'state':10}  {'age':>4}  cause or step"]
    for run, how, step in rows:
        name = run.name if len(run.name) <= width else run.name[: width - 1] + "…"
        line = f"{name:{width}}  {run.kind:6}  {how.state:10}  {age(now - run.created):>4}  {how.cause or step}"
        lines.append(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…")
    return "\n".join(line.rstrip() for line in lines)


def _seen(cluster: Cluster, run: Run) -> tuple[Standing, str]:
    """How it stands, and the line with its step or its score."""
    how, pod = standing(run), runs.newest_main(run)
    if pod is None or how.state not in (State.PENDING, State.RUNNING, State.DONE):
        return how, ""
    lines = [text for _, text in runs.log_lines(cluster, pod, tail=runs.TAIL_LINES)]
    if how.state is State.DONE:
        return how, next((line for line in reversed(lines) if line.startswith("test accuracy")), "")
    mark = runs.mark(lines)
    if begins_again(how, mark):
        return restarting(how, runs.ended_before(cluster, run) if runs.AGAIN.match(mark) else None), ""
    return how, runs.progress(lines) if how.state is State.RUNNING else ""


def details(cluster: Cluster, name: str) -> str:
    """All that is known of one run."""
    run = runs.one(cluster, name)
    settings = runs.settings(cluster, run)
    return described(run, *_seen(cluster, run), settings, runs.history(settings.output), time.time())


def described(run: Run, how: Standing, step: str, settings: Settings, history: History, now: float) -> str:
    lines = [f"{run.name}   {run.kind}, {age(now - run.created)} old: {how.state}"]
    rows = {
        "cause": how.cause,
        "step": step,
        "stops": _in_vain(history),
        "recipe": settings.recipe,
        "data": settings.data,
        "output": settings.output,
        "options": settings.options,
    }
    lines += [_wrapped(f"  {key:8} {text}") for key, text in rows.items() if text]
    if run.pods:
        lines += ["", "pods:"]
        lines += [_wrapped(f"  {pod.name}   {_said_once(_pod(pod), how.cause)}") for pod in run.pods]
    if history.attempts:
        lines += ["", "attempts:"] + [_wrapped(f"  {_attempt(attempt, now)}") for attempt in history.attempts]
    warnings = {(event.kind, event.name, event.reason): event for event in run.events if event.reason not in TOLD}
    if warnings and how.state is not State.DONE:
        lines += ["", "warnings:"]
        lines += [
            _wrapped(
                f"  {event.kind.lower()}/{event.name}, {age(now - event.time)} ago: {event.reason}: {event.message}"
            )
            for event in list(warnings.values())[-EVENTS:]
        ]
    return "\n".join(lines)


def _in_vain(history: History) -> str:
    """That a run is stopped again and again before it saves anything, and what that took; one stop is nothing."""
    stops = stops_in_vain(history.attempts, history.step)
    if len(stops) < 2:
        return ""
    since = f"since step {history.step}" if history.step >= 0 else "yet"
    spent = sum(stop.end.time - stop.began for stop in stops if stop.end is not None)
    return (
        f"{len(stops)} without a new checkpoint {since}, {age(spent)} of training lost: save more often "
        "(checkpoint.every_seconds), or take nodes that stay"
    )


def _said_once(text: str, cause: str) -> str:
    return text.replace(cause, "see cause") if cause else text


def _wrapped(line: str) -> str:
    return textwrap.fill(line, COLUMNS, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False)


def _pod(pod: Pod) -> str:
    where = f" on {pod.node}" if pod.node else ""
    if pod.phase == "Succeeded":
        return f"done{where}"
    if pod.over:
        return f"ended{where}: {why_ended(pod)}"
    waits = waits_for(pod).removeprefix(f"{pod.role}: ")
    return f"waits: {waits}" if waits else f"running{where}"


def _attempt(attempt: Attempt, now: float) -> str:
    start = f"from step {attempt.step}" if attempt.step >= 0 else "from the start"
    line = f"{attempt.generation}  {start}"
    if attempt.end is None:
        return f"{line}, {'lives' if attempt.lives(now) else 'no sign of life'}"
    cause = f": {attempt.end.cause}" if attempt.end.cause else ""
    return f"{line} to step {attempt.end.step}, exit {attempt.end.code}{cause}"


def age(seconds: float) -> str:
    """As 40s, 12m, 5h or 3d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
