"""From a request to an exit code. TensorFlow is imported once all else is known to be right."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from trainer import checkpoint, rundir, runtime
from trainer import config as configuration
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data.prepare.request import Item
from trainer.errors import CheckpointError, ConfigError, InterruptedRun, note
from trainer.export.folder import CLASSES, RUN
from trainer.predict import sources
from trainer.predict.rows import PLACES, Table
from trainer.rundir import RunDirectory
from trainer.stopping import STOP_SIGNALS, StopRequest


@dataclass(frozen=True)
class Request:
    """What a person typed after ``capsnet predict``; see its help."""

    run: Path
    images: tuple[str, ...]
    checkpoint: str = "best"
    output: Path | None = None
    scores: bool = False
    top: int = 2
    reconstructions: Path | None = None


def predict(request: Request) -> int:
    """Writes a row for each image, and returns an exit code: EXIT_UNEXPECTED where some could not be used.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is computed, in one line.
        InterruptedRun: stopped on request, or the disk is full; the rows that were written are there.
    """
    stop = StopRequest()
    try:
        config, found = _network_of(request)
        items, aside = sources.found(request.images)
        _check(request, config, found)
        if aside:
            note(f"left aside in folders and zips, as their names are not those of images: {aside:,}")
        return _predict(request, config, found, items, stop)
    except KeyboardInterrupt:
        raise InterruptedRun("stopped before the first image") from None


def _network_of(request: Request) -> tuple[RunConfig, Checkpoint | None]:
    """The configuration of a run and its checkpoint, or of an export, which has none."""
    if (request.run / CLASSES).exists():
        return configuration.load(request.run / RUN), None
    if not RunDirectory(request.run).exists:
        raise CheckpointError(
            f"{request.run}: neither a run directory nor an export; name a folder that 'capsnet train' or 'export' made"
        )
    found = checkpoint.choose(RunDirectory(request.run).checkpoints, request.checkpoint, note)
    return configuration.validated(json.loads(found.config), str(found.path)), found


def _check(request: Request, config: RunConfig, found: Checkpoint | None) -> None:
    """Raises ConfigError; makes the folders of what is to be written."""
    most = min(len(PLACES), config.model.classes)
    if not config.objects <= request.top <= most:
        raise ConfigError(f"--top {request.top}: give {config.objects} to {most}; --scores gives those of all classes")
    if request.reconstructions is not None:
        if found is None:
            raise ConfigError("--reconstructions: an export gives scores only here; name the run directory")
        if not config.model.decoder.hidden:
            raise ConfigError("--reconstructions: this network has no decoder (model.decoder.hidden)")
    if request.output is not None and request.output.is_dir():
        raise ConfigError(f"--output {request.output}: is a folder; name a file")
    places = (("--output", request.output and request.output.parent), ("--reconstructions", request.reconstructions))
    for option, folder in places:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{option} {folder}: cannot be made ({error.strerror})") from None


def _predict(
    request: Request, config: RunConfig, found: Checkpoint | None, items: list[Item], stop: StopRequest
) -> int:
    runtime.import_tensorflow()
    from trainer.predict import networks
    from trainer.predict.session import Session

    if found is None:
        network = networks.of_export(config, request.run, note)
    else:
        network = networks.of_run(config, found, reconstruct=request.reconstructions is not None)
    table = Table(network.classes, request.top, request.scores)
    stop.check()
    with _opened(request.output) as stream:
        session = Session(network, table, items, stream, request.reconstructions)
        for number in STOP_SIGNALS:
            signal.signal(number, session.stop)
        code = session.run()
        if session.stopped_after is not None:
            where = f"; their rows are in {_part(request.output)}" if request.output is not None else ""
            raise InterruptedRun(f"stopped after {session.stopped_after:,} of {len(items):,} images{where}")
    return code


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """stdout, or a file that gets its name when it is whole; names of files may be any bytes."""
    if output is None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        return
    with rundir.told_plainly(output):
        with _part(output).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            yield stream
            os.fsync(stream.fileno())
        os.replace(_part(output), output)


def _part(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")
