"""One rank's process, from its start to its exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable

from trainer import checkpoint, distributed, hints
from trainer import config as configuration
from trainer import plan as planning
from trainer.config import RunConfig
from trainer.distributed import World
from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED, CapsnetError, tell
from trainer.launch import wire
from trainer.launch.lifeline import Lifeline
from trainer.output import ranklog
from trainer.plan import Command, Plan
from trainer.progress import Progress
from trainer.rundir import RunDirectory
from trainer.scoring.request import Request

log = logging.getLogger("capsnet")


def guarded(body: Callable[[Lifeline, World], int]) -> int:
    """Runs ``body`` with signals and supervision in place, and leaves a verdict whatever happens.

    Returns only after a success on a single rank; otherwise the process ends here, because the libraries' own
    clean-up at exit waits for ranks that may be gone.
    """
    logging.raiseExceptions = False  # a full disk or a closed pipe is no reason to stop over a log line
    try:
        world = distributed.placed()
    except CapsnetError as error:
        Lifeline(int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))).open().verdict(error.exit_code, str(error))
        raise
    lifeline = Lifeline(world.rank).open()
    code, message = EXIT_UNEXPECTED, ""
    try:
        code = body(lifeline, world)
    except CapsnetError as error:
        code, message = error.exit_code, str(error)
    except Exception as error:
        lost = distributed.lost_ranks(error)
        if lost is None:
            message = f"rank {world.rank}: {type(error).__name__}: {error}"
            traceback.print_exc()
            log.debug("unexpected", exc_info=True)
        else:
            code, message = lost.exit_code, f"rank {world.rank} {lost}"
    if message:
        log.debug("%s", message)  # to the log file; the terminal has it from the verdict
    logging.shutdown()  # stores what was logged: the verdict of a rank may take all others down
    lifeline.verdict(code, message)
    if message and not lifeline.supervised and code != EXIT_UNEXPECTED:
        tell(message)
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    if code == EXIT_DONE and world.size == 1:
        return code
    os._exit(code)


def train(command: Command, lifeline: Lifeline, world: World) -> int:
    """Plans on rank 0, shares the configuration, trains, and prints how it went."""
    _log_to_console(world)
    if not world.is_first:
        return _train(None, lifeline, world)
    with planning.planned(command, world.size, log.info) as plan:
        return _train(plan, lifeline, world)


def _train(plan: Plan | None, lifeline: Lifeline, world: World) -> int:
    config, attempt = _shared(plan, lifeline, world)
    if attempt is not None:
        log.addHandler(ranklog.StoredLog(*attempt, world.rank))
        log.debug("rank %d of %d on %s, pid %d", world.rank, world.size, socket.gethostname(), os.getpid())
    limits = config.watchdog
    lifeline.limits(limits.silence_seconds, limits.hang_seconds, limits.start_seconds, limits.stop_seconds)
    if plan is not None:
        _log_to_file(plan.directory)
        log.info("run directory: %s", plan.directory.shown)

    from trainer import runtime

    runtime.import_tensorflow()
    from trainer import described, loop

    device = runtime.set_up(config, world)
    distributed.join(world)
    session = loop.Loop(config, world, lifeline, plan)
    log.info(
        "recipe %s, %s parameters, %d rank%s, %s",
        config.recipe or "(none)",
        f"{session.parameters:,}",
        world.size,
        "s" if world.size > 1 else "",
        device,
    )
    log.info("%s", described.data_line(config, session.index))
    log.info("%s", described.test_line(config, session.index))
    for line in described.routing_lines(config, session.network, world.size):
        log.info("%s", line)
    outcome = session.run()
    log.info("%s", session.input_line())
    if plan is not None:
        log.info(
            "\ntest accuracy: %.2f %% (%d images, %d steps, %.0f s)",
            100 * outcome.score.accuracy,
            outcome.score.records,
            outcome.steps,
            outcome.trained_seconds,
        )
        _say_what_next(plan, config)
    session.leave()
    return EXIT_DONE


def evaluate(request: Request, lifeline: Lifeline, world: World) -> int:
    """Scores one checkpoint; the ranks share the test records. Rank 0 says it, and writes it for TensorBoard."""
    _log_to_console(world)
    found = checkpoint.choose(RunDirectory(request.run).checkpoints, request.checkpoint, log.info)
    config = request.configured(configuration.validated(json.loads(found.config), str(found.path)))
    tests = request.chosen(config)
    if world.is_first:
        request.check()

    limits = config.watchdog
    lifeline.limits(limits.silence_seconds, limits.hang_seconds, limits.start_seconds, limits.stop_seconds)

    from trainer import runtime

    runtime.import_tensorflow()
    from trainer.scoring import output
    from trainer.scoring import run as scoring

    device = runtime.set_up(config, world)
    distributed.join(world)
    log.info("checkpoint: %s, %s", RunDirectory(request.run, str(request.place)).told(found.path), device)
    # there is nothing to save: in the starting phase a stop request ends the process at once
    progress = Progress(0, config.log.print_seconds, quiet=not world.is_first)
    reports = []
    for report in scoring.score(
        config, found, tests, world, lambda number: lifeline.mark(wire.STARTING, number), progress.now_and_then
    ):
        progress.end_line()
        reports.append(report)
        if world.is_first:
            output.tell(request, report, log.info)
    if world.is_first and request.json_file is not None:
        output.write_json(request.json_file, reports)
    distributed.barrier(world, "end")  # rank 0 has said it before another leaves
    return EXIT_DONE


def _shared(plan: Plan | None, lifeline: Lifeline, world: World) -> tuple[RunConfig, tuple[str, int] | None]:
    """Rank 0's configuration on every rank, and output and attempt of a run in a bucket: only rank 0 need see the run
    directory."""
    if plan is None:
        given = lifeline.shared()
        return configuration.validated(given["config"], "rank 0"), given["attempt"]
    attempt = plan.mirror.attempt if plan.mirror else None
    if world.size > 1:
        lifeline.share({"config": plan.config.model_dump(mode="json"), "attempt": attempt})
    return plan.config, attempt


def _say_what_next(plan: Plan, config: RunConfig) -> None:
    path = plan.directory.shown
    log.info("run directory: %s", path)
    log.info("watch:         %s", hints.command("tensorboard", path.rpartition("/")[0] or "."))
    log.info("evaluate:      %s", hints.command("evaluate", path))
    log.info("train longer:  %s", hints.command("train", path, f"--train.epochs {2 * config.train.epochs:g}"))


def _log_to_console(world: World) -> None:
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if world.is_first:
        console = logging.StreamHandler(sys.stdout)
        console.setLevel(logging.INFO)
        log.addHandler(console)


def _log_to_file(directory: RunDirectory) -> None:
    handler = logging.FileHandler(directory.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
