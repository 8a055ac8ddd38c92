"""What ``capsnet evaluate`` wrote for TensorBoard, of a run in a bucket: whole files beside its streams.

    evaluation/test/events.out.tfevents.1790000000.host.1.v2
    evaluation/affine/events.out.tfevents.1790000009.host.1.v2

Not part of any attempt at the run, so that training neither takes it back nor removes it. Files are written once; an
evaluation of the same name replaces the earlier one's by its own, under names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.rundir import EVALUATION
from trainer.storage import Entry, atomic_write, delete, join, listing, read_range


def store(output: str, name: str, folder: Path) -> str:
    """Stores the files of an evaluation, then removes those of an earlier one of that name.

    Returns:
        Where they are.

    Raises:
        StorageError, StorageRefused: what was there before is there still.
    """
    place = str(join(output, EVALUATION, name))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for file, content in files.items():
        atomic_write(f"{place}/{file}", content)
    for old in listing(place).keys() - files.keys():
        delete(f"{place}/{old}")
    return place


def bring(output: str, found: Mapping[str, Entry], run: Path) -> list[tuple[Path, int, int]]:
    """Makes the folder of evaluations of a run's local copy what the bucket has.

    Args:
        found: a listing of that folder of the bucket.

    Returns:
        Of each file that changed: path, bytes cut off, bytes appended.

    Raises:
        ObjectChanged, ObjectMissing: a file is not that of the listing any more. StorageError, StorageRefused, OSError.
    """
    folder, changes = run / EVALUATION, []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.relative_to(folder).as_posix() not in found:
            changes.append((path, path.stat().st_size, 0))
            path.unlink()
    return changes + bring_whole(output, EVALUATION, found, run)


def bring_whole(output: str, folder: str, found: Mapping[str, Entry], run: Path) -> list[tuple[Path, int, int]]:
    """The files of a folder of the bucket that the same folder of the local copy lacks, or has in another size.

    Arguments, result and errors are those of ``bring``; local files that the bucket has not stay.
    """
    changes = []
    for name, entry in found.items():
        path = run / folder / name
        had = path.stat().st_size if path.exists() else -1
        if had != entry.bytes:
            content = read_range(f"{output}/{folder}/{name}", 0, entry.bytes, entry=entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
            changes.append((path, max(0, had), len(content)))
    return changes
