"""Checkpoints of a run in a bucket: storing them whole, and fetching those that are asked for.

    checkpoints/000003-000001/state.json
    checkpoints/000003-000001/tensors.safetensors/000000    a large file is pieces, that go side by side

A run that is stopped has seconds for its last checkpoint. 500 MB as one object, in parts one after the other, took 37 s
to a server on the same busy machine; as pieces they took 4 to 5.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer import checkpoint
from trainer.errors import CheckpointError
from trainer.output import newest
from trainer.output.newest import Stored
from trainer.rundir import RunDirectory
from trainer.storage import Location, create, delete, is_cloud, listing, read_bytes, read_range

FOLDER = "checkpoints"
PIECE_BYTES = 8 * 2**20
TOGETHER = 8
"""Pieces on their way at once."""


def store(output: str, place: str, path: Path) -> None:
    """All files of a checkpoint to a folder of the bucket that is new. Raises StorageError, StorageRefused, OSError."""

    def piece(file: Path, number: int, name: str) -> None:
        create(f"{output}/{place}/{name}", read_range(file, number * PIECE_BYTES, PIECE_BYTES))

    with ThreadPoolExecutor(TOGETHER) as pool:
        going = []
        for file in sorted(path.iterdir()):
            count = -(-file.stat().st_size // PIECE_BYTES)
            names = [f"{file.name}/{number:06d}" for number in range(count)] if count > 1 else [file.name]
            going += [pool.submit(piece, file, number, name) for number, name in enumerate(names)]
        for done in going:
            done.result()


def remove(output: str, place: str) -> None:
    """Raises StorageError, StorageRefused."""
    for name in listing(f"{output}/{place}"):
        delete(f"{output}/{place}/{name}")


def forget_unnamed(output: str, known: Sequence[Stored], before: int) -> None:
    """Removes what earlier attempts had not stored whole, or not yet removed. Raises StorageError, StorageRefused."""
    named = {stored.place for stored in known}
    for name in listing(f"{output}/{FOLDER}"):
        place = name.partition("/")[0]
        generation = place.partition("-")[0]
        if generation.isdigit() and int(generation) < before and f"{FOLDER}/{place}" not in named:
            delete(f"{output}/{FOLDER}/{name}")


def fetch(output: str, stored: Stored, checkpoints: Path, *, whole: bool) -> Path:
    """A checkpoint into the folder of checkpoints of a run directory: ``whole``, or all but its tensors.

    Raises:
        CheckpointError: it is not there any more.
        StorageError, StorageRefused.
    """
    path = checkpoints / f"step-{stored.step:08d}"
    path.mkdir(parents=True, exist_ok=True)
    names = listing(f"{output}/{stored.place}")
    if checkpoint.MANIFEST not in names:
        raise CheckpointError(f"{output}/{stored.place}: the checkpoint is gone; has another attempt begun meanwhile?")
    files: dict[str, list[str]] = {}
    for name in sorted(names):
        files.setdefault(name.partition("/")[0], []).append(f"{output}/{stored.place}/{name}")
    with ThreadPoolExecutor(TOGETHER) as pool:
        for name, pieces in files.items():
            if whole or name != checkpoint.TENSORS:
                with (path / name).open("wb") as file:
                    file.writelines(pool.map(read_bytes, pieces))
    return path


def fetch_sound(output: str, order: Sequence[Stored], checkpoints: Path) -> list[Path]:
    """Checkpoints with their tensors, one after the other until one is whole.

    Returns:
        Those that were fetched; the damaged ones stay beside it, for whoever reads them to say so.

    Raises:
        StorageError, StorageRefused.
    """
    fetched = []
    for stored in order:
        fetched.append(checkpoints / f"step-{stored.step:08d}")
        with contextlib.suppress(CheckpointError):  # files of it are gone: damaged as well
            fetch(output, stored, checkpoints, whole=True)
        if checkpoint.is_whole(fetched[-1]):
            break
    return fetched


def fetch_run(output: str, which: str, folder: Path) -> None:
    """What commands on trained networks read of a run: configuration, and the checkpoint that is asked for.

    Where that is damaged, also what ``checkpoint.choose`` takes in its place.

    Args:
        which: ``last``, ``best`` or a step, as of ``checkpoint.choose``, which then finds it in ``folder``.

    Raises:
        CheckpointError: there is no such checkpoint, or no run.
        StorageError, StorageRefused.
    """
    known = newest.read(output).newest.checkpoints
    if not known:
        raise CheckpointError(f"{output}: no checkpoint; is this the place of a run that has saved one?")
    run = RunDirectory(folder)
    by_path = {fetch(output, each, run.checkpoints, whole=False): each for each in known}
    latest = sorted(by_path, key=checkpoint.step_of, reverse=True)
    if which == "best":
        wanted = checkpoint.by_score(run.checkpoints)
        wanted += [path for path in latest if path not in wanted]
    elif which == "last":
        wanted = latest
    elif which.isdigit() and int(which) in [each.step for each in known]:
        wanted = [run.checkpoints / f"step-{int(which):08d}"]
    else:
        steps = ", ".join(str(each.step) for each in known)
        raise CheckpointError(f"{output}: no checkpoint {which}; there are last, best, {steps}")
    fetched = fetch_sound(output, [by_path[path] for path in wanted], run.checkpoints)
    for path in by_path.keys() - set(fetched):
        shutil.rmtree(path)
    run.config.write_bytes((fetched[-1] / checkpoint.CONFIG).read_bytes())


@contextlib.contextmanager
def local(run: Location, which: str) -> Iterator[Path]:
    """A run directory to read from: the given one, or a copy of what ``fetch_run`` takes from a bucket.

    Raises:
        As ``fetch_run``.
    """
    if not is_cloud(run):
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="capsnet-") as folder:
        fetch_run(str(run).rstrip("/"), which, Path(folder))
        yield Path(folder)
