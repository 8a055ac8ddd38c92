"""Preparing a data set: what is there already is kept, the rest is made by all cores, the index comes last."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trainer import storage
from trainer.data.foreign import NUMBERED
from trainer.data.index import INDEX_FILE, Index, Shard, dump_index, read_index
from trainer.data.prepare import cifar, folder, imagenet, plan, pool
from trainer.data.prepare.plan import Job, Plan
from trainer.data.prepare.request import Found, Report, Request, silent
from trainer.data.prepare.seen import NOTES, ODDITIES, PLAN_FILE, Oddity, Seen, index_of, note_place, noted
from trainer.data.prepare.work import make_shard
from trainer.data.prepare.workers import processes
from trainer.errors import ConfigError, DataError


@dataclass(frozen=True)
class Done:
    """What came of it. ``kept`` shards were there already; oddities are known only where the set was made anew."""

    index: Index
    made: int
    kept: int
    skipped: tuple[Oddity, ...]
    converted: tuple[Oddity, ...]


@dataclass(frozen=True)
class _State:
    index: Index | None
    seen: dict[str, Seen]
    whole: set[str]


def prepare(request: Request, report: Report = silent, listing: Report = silent) -> Done:
    """Makes the data set, or completes it.

    Args:
        report: is told of images; ``listing`` of what is found in the source, before.

    Raises:
        ConfigError, DataError: the source is not of its kind or is damaged, the destination holds something else, too
            many images cannot be decoded, or a file could not be written.
        StorageError, StorageRefused: Cloud Storage.
    """
    try:
        made = plan.made(find(request, listing), request)
        state = _state(request.destination, made)
        missing = [job for job in made.jobs if job.file not in state.whole]
        storage.make_folder(storage.join(request.destination, NOTES))
        _clean(request.destination)
        if state.index is None:
            storage.atomic_write(note_place(request.destination, PLAN_FILE), json.dumps(made.fingerprint).encode())
        fresh = _made(request, made, missing, state, report)
        if state.index is not None:
            _check_same(request, state.index, fresh)
            index, seen = state.index, list(fresh.values())
        else:
            seen = [{**state.seen, **fresh}[job.file] for job in made.jobs]
            index = _finish(request, made, seen)
        _remove_notes(request.destination, made)
    except OSError as error:
        place = error.filename or request.destination
        raise DataError(f"{place}: {error.strerror or error}; mend that, the same command goes on from there") from None
    return Done(
        index,
        len(fresh),
        len(made.jobs) - len(fresh),
        tuple(odd for one in seen for odd in one.skipped),
        tuple(odd for one in seen for odd in one.converted),
    )


def find(request: Request, listing: Report = silent) -> Found:
    """What the source holds. Raises ConfigError, DataError."""
    source, kind = existing(request.source), request.kind
    kind = kind_of(source) if kind == "auto" else kind
    if kind in cifar.KINDS:
        found = cifar.find(source, kind)
    elif kind == "imagenet":
        found = imagenet.find(source, request.names, listing)
    else:
        words = imagenet.read_words(request.names) if request.names else None
        found = folder.find(source, request.name, words, listing)
    return replace(found, name=request.name or found.name)


def existing(source: Path) -> Path:
    """The same; raises DataError where there is nothing."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; name the archive, or the folder that holds it")
    return source


def kind_of(source: Path) -> str:
    """What a source looks like."""
    for kind, official in cifar.KINDS.items():
        names = (official.archive, official.names)
        places = [source, *(source.iterdir() if source.is_dir() else ())]
        if source.name == official.archive or any((place / name).is_file() for place in places for name in names):
            return kind
    if imagenet.is_imagenet(source):
        return "imagenet"
    if source.is_dir() and any(_is_tfrecord(path) for path in source.iterdir()):
        return "tfrecord"
    if source.is_file() and source.suffix.lower() != ".zip":
        raise ConfigError(f"{source}: not a source that is known; see 'capsnet data prepare --help'")
    return "folder"


def _is_tfrecord(path: Path) -> bool:
    return path.is_file() and ("tfrecord" in path.name or bool(NUMBERED.fullmatch(path.name)))


def _state(destination: storage.Location, made: Plan) -> _State:
    """What is at the destination; raises DataError where that is not of this plan."""
    try:
        entries = storage.listing(destination)
    except FileNotFoundError:
        entries = {}
    except NotADirectoryError:
        raise DataError(f"{destination}: a file; name a folder") from None
    files = {job.file for job in made.jobs}
    index = read_index(str(destination)) if INDEX_FILE in entries else None
    if index is not None and index.plan != made.fingerprint:
        raise DataError(
            f"{destination}: holds another data set, {index.name} (or the same from another source or with other "
            "options); name another destination or remove it"
        )
    ours = index is not None
    plan_note = f"{NOTES}/{PLAN_FILE}.json"
    if not ours and plan_note in entries:
        ours = storage.read_bytes(storage.join(destination, plan_note)) == json.dumps(made.fingerprint).encode()
        if not ours:
            raise DataError(
                f"{destination}: holds the beginning of another data set (or of the same with other options); "
                "name another destination or remove it"
            )
    foreign = sorted(
        n for n in entries if not (ours and (n in {*files, INDEX_FILE, ODDITIES} or n.startswith(f"{NOTES}/")))
    )
    if foreign:
        raise DataError(
            f"{destination}: holds {foreign[0]}"
            + (f" and {len(foreign) - 1} more files" if foreign[1:] else "")
            + ", not of this data set; name an empty folder or prefix"
        )
    seen: dict[str, Seen] = {}
    shards: dict[str, Shard | None] = {}
    if index is not None:
        shards = {shard.file: shard for split in index.splits.values() for shard in split.shards}
    else:
        for file in files:
            if f"{NOTES}/{file}.json" in entries:
                one = noted(storage.read_bytes(note_place(destination, file)), made.fingerprint)
                if one is not None:
                    seen[file], shards[file] = one, one.shard
    whole = {file for file, shard in shards.items() if _is_whole(destination, shard, entries)}
    return _State(index, seen, whole)


def _is_whole(destination: storage.Location, shard: Shard | None, entries: dict[str, storage.Entry]) -> bool:
    if shard is None:
        return True
    entry = entries.get(shard.file)
    if entry is None or entry.bytes != shard.bytes:
        return False
    if entry.crc32c is not None:
        return entry.crc32c == shard.crc32c
    return storage.crc32c(storage.read_bytes(storage.join(destination, shard.file))) == shard.crc32c


def _made(request: Request, made: Plan, jobs: list[Job], state: _State, report: Report) -> dict[str, Seen]:
    kept = [state.seen[job.file] for job in made.jobs if job.file in state.whole and job.file in state.seen]
    skipped = [odd for one in kept for odd in one.skipped]
    done = made.records - sum(len(job.items) for job in jobs)
    fresh: dict[str, Seen] = {}
    report(done, made.records)
    make = partial(make_shard, request.destination, classes=len(made.found.classes), plan=made.fingerprint)
    workers = processes(request.workers, jobs)
    with contextlib.closing(pool.results(make, jobs, workers, str(request.destination))) as results:
        for job, seen in results:
            fresh[job.file] = seen
            done += len(job.items)
            report(done, made.records)
            skipped += seen.skipped
            if len(skipped) > request.bad_share * made.records:
                raise DataError(
                    f"{request.source}: {len(skipped)} of {made.records} images cannot be decoded, more than "
                    f"--bad-share {request.bad_share:g}; among them {_named(skipped)}"
                )
    return fresh


def _named(oddities: list[Oddity]) -> str:
    return "; ".join(f"{odd.name} ({odd.reason})" for odd in sorted(oddities)[:5])


def _check_same(request: Request, index: Index, fresh: dict[str, Seen]) -> None:
    shards = {shard.file: shard for split in index.splits.values() for shard in split.shards}
    for file, seen in fresh.items():
        if seen.shard != shards[file]:
            raise DataError(
                f"{request.destination}: {file} came out otherwise than the index says, the source or Pillow has "
                "changed; prepare into an empty folder"
            )


def _finish(request: Request, made: Plan, seen: list[Seen]) -> Index:
    index = index_of(
        made.found,
        seen,
        plan=made.fingerprint,
        source=request.source.name,
        licence=request.licence,
        command=request.command,
    )
    oddities = {what: sorted(some) for what, some in _oddities(seen).items() if some}
    odd = [f"{what}: {len(some)}, listed in {ODDITIES}" for what, some in oddities.items()]
    if oddities:
        lines = [f"{what}\t{odd.name}\t{odd.reason}\n" for what, some in oddities.items() for odd in some]
        text = "".join(lines).encode(errors="surrogateescape")
        storage.atomic_write(storage.join(request.destination, ODDITIES), text)
    index = index.model_copy(update={"notes": (*made.notes, *index.notes, *odd, f"shuffled by seed {request.seed}")})
    storage.atomic_write(storage.join(request.destination, INDEX_FILE), dump_index(index))
    return index


def _oddities(seen: list[Seen]) -> dict[str, list[Oddity]]:
    return {
        "skipped, cannot be decoded": [odd for one in seen for odd in one.skipped],
        "converted": [odd for one in seen for odd in one.converted],
    }


def _clean(destination: storage.Location) -> None:
    """Removes what a killed process left half-written."""
    if not storage.is_cloud(destination):
        for place in (Path(destination), Path(destination, NOTES)):
            for path in place.glob(".*.tfrecord.*.tmp"):
                path.unlink(missing_ok=True)
            for path in place.glob(".*.json.*.tmp"):
                path.unlink(missing_ok=True)


def _remove_notes(destination: storage.Location, made: Plan) -> None:
    for file in [*(job.file for job in made.jobs), PLAN_FILE]:
        storage.delete(note_place(destination, file))
    if not storage.is_cloud(destination):
        with contextlib.suppress(OSError):
            Path(destination, NOTES).rmdir()
