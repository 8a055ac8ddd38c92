"""From a command to what will run: a new run, one that goes on, or one that starts from another's weights.

Everything that can be wrong is found here, before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer import checkpoint, configs, rundir
from trainer import config as configuration
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data.index import Index
from trainer.errors import CheckpointError, ConfigError
from trainer.model import costs, shapes
from trainer.output import copies, newest
from trainer.output.mirror import Mirror, opened
from trainer.rundir import RunDirectory
from trainer.storage import Location, is_cloud

NOWHERE = "/nonexistent"
"""The run directory of a run that has none yet, and gets none."""


@dataclass(frozen=True)
class Command:
    """What a person typed after ``capsnet train``. ``weights_shown``: what they call the run that weights are from,
    where that is not its path."""

    recipe: str | None = None
    run: Location | None = None
    from_run: Location | None = None
    weights_from: Location | None = None
    weights_shown: str = ""
    new_head: bool = False
    allow_changes: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What rank 0 will do.

    ``resume`` is the checkpoint to go on from, ``weights`` one to start from, which a person calls ``weights_shown``;
    ``mirror`` stores a run in a bucket.
    """

    config: RunConfig
    directory: RunDirectory
    resume: Checkpoint | None
    weights: Checkpoint | None
    new_head: bool
    mirror: Mirror | None = None
    weights_shown: str = ""


@contextlib.contextmanager
def planned(command: Command, ranks: int, say: Callable[[str], None]) -> Iterator[Plan]:
    """As ``make``, of runs in buckets as well, which are kept in local folders while the context lasts.

    Raises:
        As ``make``; StorageError, StorageRefused.
    """
    with contextlib.ExitStack() as stack:
        command = _fetched(command, stack)
        if command.run is not None and is_cloud(command.run):
            mirror = stack.enter_context(opened(str(command.run), say))
            plan = make(command, ranks, say, RunDirectory(mirror.run, mirror.output))
            yield replace(plan, mirror=mirror)
            return
        plan = make(command, ranks, say, RunDirectory(Path(command.run)) if command.run else None)
        stack.callback(plan.directory.discard_if_unused)
        yield plan


@contextlib.contextmanager
def previewed(command: Command, ranks: int, say: Callable[[str], None]) -> Iterator[Plan]:
    """As ``planned``, of a run that is not begun: nothing is locked, claimed or written."""
    with contextlib.ExitStack() as stack:
        command = _fetched(command, stack)
        existing = RunDirectory(Path(command.run)) if command.run else None
        if command.run is not None and is_cloud(command.run):
            output = str(command.run)
            there = newest.read(output).newest.checkpoints
            folder = stack.enter_context(copies.local(output, "last")) if there else Path(NOWHERE)
            existing = RunDirectory(folder, output)
        yield make(command, ranks, say, existing, lock=False)


def _fetched(command: Command, stack: contextlib.ExitStack) -> Command:
    """The runs that it only reads, as folders."""
    if command.from_run is not None:
        command = replace(command, from_run=stack.enter_context(copies.local(command.from_run, "last")))
    if command.weights_from is not None:
        folder, shown = stack.enter_context(copies.local(command.weights_from, "last")), str(command.weights_from)
        command = replace(command, weights_from=folder, weights_shown=shown)
    return command


def make(
    command: Command, ranks: int, say: Callable[[str], None], existing: RunDirectory | None, *, lock: bool = True
) -> Plan:
    """Resolves a command, locks the run directory and checks that the data fits.

    Args:
        existing: where the run is to be, or is.
        lock: make the directory, and this process its only writer.

    Raises:
        ConfigError, DataError, CheckpointError: with one line that says what, where and what to do.
    """
    if command.recipe and command.from_run:
        raise ConfigError(f"give a recipe ({command.recipe}) or --from-run {command.from_run}, not both")
    if existing is not None and existing.exists:
        return _resume(command, existing, ranks, say, lock=lock)
    config = _new_config(command)
    check(config, ranks)
    weights, shown = None, ""
    if command.weights_from is not None:
        source = RunDirectory(Path(command.weights_from), command.weights_shown)
        if not source.exists:
            raise ConfigError(f"--weights-from {source.shown}: not a run directory; name one that 'capsnet train' made")
        weights = checkpoint.choose(source.checkpoints, "last", say)
        shown = source.told(weights.path)
    elif command.new_head:
        raise ConfigError("--new-head needs --weights-from RUN")
    directory = existing or RunDirectory(rundir.new_path(config.recipe))
    if lock:
        directory.lock()
    if directory.exists:  # another process began and ended the run while this one waited for the lock
        return _resume(command, directory, ranks, say, lock=lock)
    return Plan(config, directory, None, weights, command.new_head, weights_shown=shown)


def _new_config(command: Command) -> RunConfig:
    if command.from_run is not None:
        base = configuration.load(RunDirectory(Path(command.from_run)).config)
    else:
        base = configs.load(command.recipe or configs.DEFAULT)
    return configuration.with_overrides(base, command.overrides)


def _resume(command: Command, directory: RunDirectory, ranks: int, say: Callable[[str], None], *, lock: bool) -> Plan:
    if command.weights_from is not None:
        raise ConfigError(f"{directory.shown} is an existing run: --weights-from starts new ones, choose another --run")
    stored = configuration.load(directory.config)
    base = stored
    if command.recipe and command.recipe != stored.recipe:
        base = configs.load(command.recipe)
    elif command.from_run is not None:
        base = configuration.load(RunDirectory(Path(command.from_run)).config)
    config = configuration.with_overrides(base, command.overrides)
    changes = configuration.differences(stored, config)
    refused = [f"{path} ({old} -> {new})" for path, old, new, neutral in changes if not neutral]
    if refused and not command.allow_changes:
        raise ConfigError(
            f"{directory.shown}: a resumed run would mean something else with {', '.join(refused)}; start a new run "
            "without --run, or insist with --allow-changes"
        )
    index = check(config, ranks)
    if lock:
        directory.lock()
    for path, old, new, _neutral in changes:
        say(f"changed since the run began: {path} ({old} -> {new})")
    found = checkpoint.read_newest(
        directory.checkpoints, lambda line: say(line.replace(str(directory.path), directory.shown))
    )
    _check_shapes_kept(stored, config, found)
    if found is not None and found.state.data != data_index.fingerprint(index) and not command.allow_changes:
        raise ConfigError(
            f"{config.data.uri}: other records than those that {directory.shown} was trained on; name the same data "
            "set with --data.uri, or insist with --allow-changes"
        )
    return Plan(config, directory, found, None, False)


def _check_shapes_kept(stored: RunConfig, config: RunConfig, found: Checkpoint | None) -> None:
    if found is None:
        return
    for section in ("stem", "primary", "head", "decoder", "classes", "image_size", "channels"):
        if getattr(stored.model, section) != getattr(config.model, section):
            raise CheckpointError(
                f"{found.path}: its tensors do not fit another model.{section}; start a new run with --weights-from "
                f"{found.path.parent.parent}"
            )
    if config.model.head.kind != "capsules" and costs.costs(stored.model) != costs.costs(config.model):
        raise CheckpointError(
            f"{found.path}: its tensors do not fit, as the control (model.head.kind) is sized after what it "
            f"replaces; start a new run with --weights-from {found.path.parent.parent} --new-head"
        )


def check(config: RunConfig, ranks: int) -> Index:
    """What can be known before TensorFlow starts: ranks, sizes of the network, the data set, which is returned."""
    lanes, batch = config.data.lanes, config.train.global_batch_size
    if lanes % ranks:
        fitting = [count for count in range(ranks, batch + 1, ranks) if batch % count == 0]
        nearest = min(fitting, key=lambda count: abs(count - lanes), default=0)
        other = f", or a new run with --data.lanes {nearest}" if nearest else ""
        raise ConfigError(f"{ranks} ranks do not divide data.lanes {lanes}: start another number of ranks{other}")
    rank_batch = config.train.global_batch_size // ranks
    if rank_batch % config.train.accumulate:
        raise ConfigError(
            f"a rank's batch of {rank_batch} is not a multiple of train.accumulate {config.train.accumulate}"
        )
    shapes.shapes(config.model)
    if config.model.head.kind != "capsules":
        costs.control_width(config.model)
    index = data_index.load_index(config.data.uri, config.storage)
    data_index.check_fits(index, config)
    return index
