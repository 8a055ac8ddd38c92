"""How a run stands, and why, in plain words: pure functions of what the cluster, its log and its ledger say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from trainer.cluster.facts import Event, Pod, Run
from trainer.cluster.runs import AGAIN
from trainer.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_MEANINGS, EXIT_UNEXPECTED, EXIT_WRONG
from trainer.output.ledger import FINAL, End

BAD_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
STARTING = ("ContainerCreating", "PodInitializing")
KILLED = 137
SHORT = {"nvidia.com/gpu": "GPUs", "cpu": "CPU", "memory": "memory", "ephemeral-storage": "local disk"}
INVALID = "ValidationError"
"""Reason of the only word that the MPI Operator has for a spec that it does not take."""


class State(StrEnum):
    SUSPENDED = "suspended"
    PENDING = "pending"
    RUNNING = "running"
    RESTARTING = "restarting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Standing:
    """``code``: exit code of a run that is over."""

    state: State
    cause: str = ""
    code: int | None = None

    @property
    def over(self) -> bool:
        return self.state in (State.DONE, State.FAILED)


def standing(run: Run) -> Standing:
    """How a run stands, from one look at its objects."""
    if {"Complete", "SuccessCriteriaMet", "Succeeded"} & set(run.conditions):
        return Standing(State.DONE, code=EXIT_DONE)
    for end in ("Failed", "FailureTarget"):
        if end in run.conditions:
            return _failed(run, run.conditions[end])
    invalid = [event for event in run.events if event.kind == "MPIJob" and event.reason == INVALID]
    if invalid and not run.pods:
        return Standing(State.FAILED, f"the MPI Operator refuses it: {invalid[-1].message}", EXIT_WRONG)
    if run.suspended or "Suspended" in run.conditions:
        who = f"waits in the queue {run.queue}" if run.queue else "suspended: by a queue, or by a person"
        return Standing(State.SUSPENDED, who)
    return _under_way(run)


def _failed(run: Run, condition: tuple[str, str]) -> Standing:
    last = last_end(run)
    if last is None or last.ended is None:
        return Standing(State.FAILED, why_ended(last) if last else ": ".join(filter(None, condition)), EXIT_UNEXPECTED)
    code = last.ended.code
    final = code if code in EXIT_MEANINGS and code not in (EXIT_DONE, EXIT_INTERRUPTED) else EXIT_UNEXPECTED
    return Standing(State.FAILED, why_ended(last), final)


def _under_way(run: Run) -> Standing:
    alive = [pod for pod in run.pods if not pod.over]
    mains = [pod for pod in alive if pod.main]
    before = last_end(run)
    if before is not None and before.phase == "Succeeded":  # the Job is about to say so
        return Standing(State.RUNNING)
    held = next((why for why in map(waits_for, [*mains, *alive]) if why), "")
    if mains and not held:
        return Standing(State.RUNNING)
    if not held and not mains:
        held = not_made(run.events) or ("" if before else "its pods are being made")
    if before is not None:
        return Standing(State.RESTARTING, "; ".join(filter(None, [why_ended(before), held])))
    return Standing(State.PENDING, held)


def begins_again(how: Standing, mark: str) -> bool:
    """Whether a run that waits or runs has made steps before, or tried to, and makes none now.

    Args:
        mark: of its log, see ``runs.mark``.
    """
    return (how.state is State.PENDING and bool(mark)) or (how.state is State.RUNNING and bool(AGAIN.match(mark)))


def restarting(how: Standing, before: End | None) -> Standing:
    """Of a run that begins again. ``before``: the end of the attempt before, where that is known and is why."""
    if before is None:
        return Standing(State.RESTARTING, how.cause or "from the last checkpoint")
    if before.code in FINAL:  # there is no other attempt: the run is about to end
        return how
    why = f"exit {before.code}: {before.cause or EXIT_MEANINGS.get(before.code, 'failed')}"
    return Standing(State.RESTARTING, "; ".join(filter(None, [why, how.cause])))


def last_end(run: Run) -> Pod | None:
    """The pod whose end was the last of those that decide."""
    ended = [pod for pod in run.pods if pod.main and pod.over]
    return ended[-1] if ended else None


def waits_for(pod: Pod) -> str:
    """Why a pod does not run yet; empty for one that does."""
    who = "" if pod.main else f"{pod.role}: "
    if pod.deleted:
        return f"{who}is being taken away"
    if pod.phase == "Running" and pod.waiting is None:
        return ""
    if pod.waiting is not None and pod.waiting[0] not in STARTING:
        return who + _not_started(pod, *pod.waiting)
    if pod.unscheduled:
        return who + _unscheduled(pod.unscheduled)
    return f"{who}starting" + (f" on {pod.node}" if pod.node else "")


def _not_started(pod: Pod, reason: str, message: str) -> str:
    if reason in BAD_IMAGE:
        detail = re.sub(rf"^Back-off pulling image \"{re.escape(pod.image)}\":? ?", "", message)
        return f"image {pod.image} cannot be pulled: {detail or reason}"
    return f"{reason}: {message}".rstrip(": ")


def _unscheduled(message: str) -> str:
    """The scheduler's sentence, what is short in it first."""
    nodes = re.split(r" preemption:| no new claims", message)[0].rstrip(" .,")
    short = [words for name, words in SHORT.items() if f"Insufficient {name}" in message]
    return f"no node has enough {' and '.join(short)} free: {nodes}" if short else f"no node takes it: {nodes}"


def not_made(events: tuple[Event, ...]) -> str:
    """Why there are no pods, as the newest warning has it: a quota, an admission."""
    for event in reversed(events):
        if event.kind != "Pod":
            text = re.sub(r'^Error creating: pods "[^"]*" is forbidden: ', "", event.message)
            quota = re.match(r"exceeded quota: ([^,]+), requested: ([^,]+(?:,\S+)*)", text)
            return f"quota {quota[1]} is used up: {text}" if quota else f"{event.reason}: {text}"
    return ""


def why_ended(pod: Pod) -> str:
    """How a pod ended: the program's own line where it left one."""
    ended = pod.ended
    if ended is not None and ended.reason == "OOMKilled":
        limit = f"the container's limit of {pod.memory}" if pod.memory else "the limit of its node"
        return f"out of memory: killed at {limit}" + (f" ({ended.message})" if ended.message else "")
    if pod.reason == "Evicted":
        return f"evicted: {' '.join(pod.message.split())}"
    if pod.disrupted and (ended is None or not ended.message):
        return _disrupted(pod.disrupted)
    if ended is None:
        return f"{pod.reason or pod.phase}: {pod.message}".rstrip(": ")
    code = f"exit {ended.code}"
    if ended.message:
        return f"{code}: {ended.message}"
    if ended.code == KILLED:
        return f"{code}: killed without a word"
    meaning = EXIT_MEANINGS.get(ended.code)
    return f"{code}: {meaning}" if meaning else code


def _disrupted(condition: str) -> str:
    reason, _, message = condition.partition(": ")
    words = {
        "PreemptionByScheduler": "preempted by a pod of higher priority",
        "DeletionByTaintManager": "its node was tainted: drained, or lost",
        "EvictionByEvictionAPI": "evicted: its node is being drained",
        "DeletionByPodGC": "its node is gone",
        "TerminationByKubelet": "evicted by its node",
    }
    return f"{words.get(reason, reason)} ({message})" if message else words.get(reason, reason)
