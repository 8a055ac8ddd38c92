"""``capsnet sync``: runs in a bucket as local files that TensorBoard can follow."""

from __future__ import annotations

import argparse
import time
from typing import Any

from trainer.errors import EXIT_DONE, ConfigError, StorageError, note
from trainer.parsing import EXIT_CODES, add
from trainer.storage import is_cloud, local_place

EVERY_SECONDS = 10.0


def add_sync(commands: Any) -> None:
    parser = add(
        commands,
        "sync",
        _sync,
        "bring events, metrics, logs and profiles of runs in a bucket to a folder, for TensorBoard",
        "examples:\n"
        "  capsnet sync gs://BUCKET/runs runs\n"
        "  # go on as they grow, beside 'tensorboard --logdir runs'\n"
        "  capsnet sync gs://BUCKET/runs runs --follow\n\n"
        "URI is a run, or has runs below it, each of which becomes a folder. Files are\n"
        "appended to in place, as TensorBoard needs it, and cut where a run was taken\n"
        "back to its checkpoint. A point is there 15 s after it was written (5 s until it\n"
        "is stored, --every until it is seen). Started again, it goes on where it was.\n\n" + EXIT_CODES,
    )
    parser.add_argument("uri", metavar="URI", help="gs://BUCKET/...")
    parser.add_argument("folder", type=local_place, metavar="FOLDER", help="local folder, made if it is not there")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--every", type=float, default=EVERY_SECONDS, metavar="SECONDS", help="between two looks (default: %(default)g)"
    )


def _sync(parsed: argparse.Namespace) -> int:
    from trainer.output import sync

    if not is_cloud(parsed.uri):
        raise ConfigError(f"{parsed.uri}: give gs://BUCKET/...; a local folder needs no copy")
    if parsed.every <= 0:
        raise ConfigError(f"--every {parsed.every:g}: give more than 0 seconds")
    silent = False
    try:
        parsed.folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                changes = sync.sync(parsed.uri, parsed.folder)
                for run in sorted({change.path.parent for change in changes}):
                    size = sum(change.appended for change in changes if change.path.parent == run)
                    note(f"{run}: {size:,} bytes")
                silent = False
            except StorageError as error:
                if not parsed.follow:
                    raise
                if not silent:
                    note(f"{error}; trying again every {parsed.every:g} s")
                silent = True
            if not parsed.follow:
                break
            time.sleep(parsed.every)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; choose another folder") from None
    if not sync.runs(parsed.uri):
        note(f"{parsed.uri}: no run there yet")
    return EXIT_DONE
