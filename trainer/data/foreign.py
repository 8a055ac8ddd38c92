"""An index for TFRecords that others wrote, which are left as they are: the layouts of TFDS and of Inception.

TFDS: ``NAME-SPLIT.tfrecord-00000-of-00016``, keys ``image`` and ``label`` from 0, class names in a file beside them.
Inception: ``train-00000-of-01024``, keys ``image/encoded`` and ``image/class/label`` from 1, class names in records.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trainer import distributed, storage
from trainer.data import labels, scan_notes
from trainer.data.index import (
    FORMAT,
    INDEX_FILE,
    ImageSize,
    Index,
    Layout,
    Split,
    dump_index,
    folder_of,
    read_index,
)
from trainer.data.prepare import pool
from trainer.data.prepare.seen import NOTES
from trainer.data.scan import Job, Scanned, Sums, is_gzip
from trainer.data.shards import Pixels, statistics
from trainer.data.tfrecord import decode_example, framed_records, payload
from trainer.errors import DataError

LAYOUTS = (Layout(first_label=1), Layout(image="image", label="label", first_label=0))
NUMBERED = re.compile(r"(?P<stem>(?:[^\s./][^\s/]*/)*[^\s./][^\s/]*?)-(?P<number>\d+)-of-(?P<count>\d+)(\.tfrecords?)?")
FIRST_SPLITS = ("train", "validation", "val", "test")
SMALL_BYTES = 32 * 2**20


class Files(NamedTuple):
    """The shards of a split, in their order, and the name before their split's."""

    split: str
    prefix: str
    names: list[str]


def write_index(
    source: str,
    destination: str,
    *,
    name: str | None,
    licence: str,
    command: str,
    class_names: tuple[str, ...] | None,
    report: Callable[[int, int], None] | None,
    workers: int | None = None,
) -> Index:
    """Reads every record below ``source`` and writes ``index.json`` at ``destination``, beside the shards or elsewhere.

    What was read is noted at the destination until then: interrupted, the same call goes on from there.

    Args:
        name: of the data set; by default what its files say, or the folder's name.
        licence: where it is empty, what ``dataset_info.json`` says.
        class_names: by default what a file or the records say, or else numbers.
        report: called now and then with (bytes of the shards read, bytes of all).
        workers: processes; None: one for each core.

    Raises:
        DataError: no such shards, some are missing, none of the layouts, a record is damaged or does not fit (names
            file, record and reason), or there is the index of another data set at the destination.
        StorageError, StorageRefused: a bucket cannot be read or written.
    """
    folder, target = _absolute(source), _absolute(destination)
    if storage.is_cloud(target) and not storage.is_cloud(folder):
        raise DataError(f"{destination}: an index in a bucket cannot point to local files; copy {source} there first")
    entries = _listed(folder)
    splits = find_splits(entries, folder)
    plan = f"tfrecord-{_plan(entries, splits):08x}"
    _check_destination(destination, target, plan)
    beside = splits[0].names[0].rpartition("/")[0]
    info = labels.read_info(
        storage.join(folder, beside) if beside else folder,
        {file.removeprefix(f"{beside}/"): entry for file, entry in entries.items()},
    )
    layout = _recognised(folder, splits[0].names[0], entries)
    names = class_names or info.classes
    jobs = [
        [Job(folder, file, entries[file], layout, len(names) or info.count, number == 0) for file in split.names]
        for number, split in enumerate(splits)
    ]
    storage.make_folder(storage.join(target, NOTES))
    scanned = _scanned(jobs, target, workers, report)
    _check_counts(folder, splits, scanned, info)
    index = _index(splits, scanned, labels.chosen(tuple(names), info.count, [one for part in scanned for one in part]))
    index = index.model_copy(
        update={
            "name": name or info.name or splits[0].prefix or _last_part(folder),
            "layout": layout,
            "source": source,
            "licence": licence or info.licence or "not stated",
            "command": command,
            "location": "" if str(folder) == str(target) else str(folder),
            "plan": plan,
        }
    )
    storage.atomic_write(storage.join(target, INDEX_FILE), dump_index(index))
    scan_notes.remove(target, [job for part in jobs for job in part])
    return index


def find_splits(entries: dict[str, storage.Entry], folder: storage.Location) -> list[Files]:
    """The splits, train first; raises DataError where shards are missing or two sets are mixed."""
    groups: dict[tuple[str, int], dict[int, str]] = {}
    for file in sorted(entries):
        if found := NUMBERED.fullmatch(file):
            groups.setdefault((found["stem"], int(found["count"])), {})[int(found["number"])] = file
    if not groups:
        raise DataError(f"{folder}: holds no shards NAME-00000-of-00016; name the folder that holds them")
    splits: dict[str, Files] = {}
    for (stem, count), files in groups.items():
        missing = [number for number in range(count) if number not in files]
        if missing or len(files) != count:
            shown = ", ".join(f"{number:05d}" for number in missing[:5]) + (", …" if len(missing) > 5 else "")
            raise DataError(
                f"{folder}: of the shards {stem}-*-of-{count:05d} {len(missing)} are missing ({shown}); copy them too"
            )
        prefix, _, split = re.sub(r"\.tfrecords?$", "", stem.rpartition("/")[2]).rpartition("-")
        if split in splits:
            raise DataError(
                f"{folder}: two sets of shards are called {split} ({splits[split].names[0]}, {files[0]}); "
                "name a folder that holds one"
            )
        splits[split] = Files(split, prefix, [files[number] for number in range(count)])
    ranks = {split: number for number, split in enumerate(FIRST_SPLITS)}
    return sorted(splits.values(), key=lambda files: (ranks.get(files.split, len(ranks)), files.split))


def _absolute(uri: str) -> storage.Location:
    folder = folder_of(uri)
    return folder if storage.is_cloud(folder) else Path(folder).resolve()


def _last_part(folder: storage.Location) -> str:
    return str(folder).rstrip("/").rpartition("/")[2]


def _listed(folder: storage.Location) -> dict[str, storage.Entry]:
    try:
        return storage.listing(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); name a folder of TFRecords") from None


def _plan(entries: dict[str, storage.Entry], splits: list[Files]) -> int:
    """Tells one set of shards from another by their names and sizes."""
    named = [(split.split, [(file, entries[file].bytes) for file in split.names]) for split in splits]
    return storage.crc32c(repr(named).encode())


def _check_destination(destination: str, target: storage.Location, plan: str) -> None:
    try:
        if INDEX_FILE not in storage.listing(target):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{target}: cannot be read ({error.strerror}); name another destination") from None
    if read_index(destination).plan != plan:
        raise DataError(f"{destination}: holds the index of another data set; remove it or name another destination")


def _recognised(folder: storage.Location, file: str, entries: dict[str, storage.Entry]) -> Layout:
    """The layout by the keys of the first record."""
    path = storage.join(folder, file)
    if is_gzip(path):
        raise DataError(f"{path}: is compressed with GZIP, blocks of it cannot be read; decompress it")
    try:
        first = next(framed_records(storage.chunks(path, entries[file])), None)
        keys = decode_example(payload(first)).keys() if first is not None else set()
    except ValueError as error:
        raise DataError(f"{path}: record 0: {error}; name a folder of TFRecords of images") from None
    for layout in LAYOUTS:
        if {layout.image, layout.label} <= keys:
            return layout
    known = " nor ".join(f"{layout.image} and {layout.label}" for layout in LAYOUTS)
    raise DataError(f"{path}: record 0: has neither {known} but {', '.join(sorted(keys)) or 'nothing'}; convert them")


def _scanned(
    jobs: list[list[Job]], target: storage.Location, workers: int | None, report: Callable[[int, int], None] | None
) -> list[list[Scanned]]:
    """What each job found, now or before an interruption, in processes where there is enough to read."""
    flat = [job for part in jobs for job in part]
    total = sum(job.entry.bytes for job in flat)
    found = scan_notes.noted(target, flat)
    done = sum(flat[number].entry.bytes for number in found)
    if report:
        report(done, total)
    left = [(number, job) for number, job in enumerate(flat) if number not in found]
    with contextlib.closing(_each(left, target, workers)) as results:
        for (number, job), one in results:
            found[number] = one
            done += job.entry.bytes
            if report:
                report(done, total)
    ordered = iter(found[number] for number in range(len(flat)))
    return [[next(ordered) for _ in part] for part in jobs]


def _each(
    jobs: list[tuple[int, Job]], target: storage.Location, workers: int | None
) -> Generator[tuple[tuple[int, Job], Scanned], None, None]:
    call = partial(scan_notes.scanned, target)
    workers = min(workers or distributed.cores(), len(jobs))
    if workers > 1 and sum(job.entry.bytes for _, job in jobs) >= SMALL_BYTES:
        yield from pool.results(call, jobs, workers, str(target))
    else:
        yield from ((job, call(job)) for job in jobs)


def _check_counts(folder: Any, splits: list[Files], scanned: list[list[Scanned]], info: labels.Info) -> None:
    """Records of each split against those that ``dataset_info.json`` states; raises DataError."""
    for split, part in zip(splits, scanned, strict=True):
        stated, found = info.records.get(split.split), sum(one.labels.total() for one in part)
        if stated not in (None, found):
            raise DataError(
                f"{folder}: split {split.split} has {found} records, {labels.INFO_FILE} says {stated}; copy it again"
            )


def _index(splits: list[Files], scanned: list[list[Scanned]], named: labels.Named) -> Index:
    """All that the records say; what is said of them is filled in later."""
    everything = [one for part in scanned for one in part]
    records, gray = sum(one.labels.total() for one in everything), sum(one.gray for one in everything)
    channels = 1 if gray == records else 3
    sums = Sums()
    for one in scanned[0]:
        sums.add(one.colour_sums)
        plain = one.gray_sums
        sums.add(plain if channels == 1 or not plain.count else Sums(plain.count, plain.total * 3, plain.squares * 3))
    heights = (min(one.heights[0] for one in everything), max(one.heights[1] for one in everything))
    widths = (min(one.widths[0] for one in everything), max(one.widths[1] for one in everything))
    mean, deviation = statistics(Pixels(channels, heights, widths, sums.count, sums.total, sums.squares))
    sampled = sum(one.sampled for one in scanned[0])
    notes = [f"{gray} of {records} images are gray, the others are not"] if 0 < gray < records else []
    return Index(
        format=FORMAT,
        name="",
        classes=named.classes,
        descriptions=named.descriptions,
        image=ImageSize(
            channels=channels,
            height_min=heights[0],
            height_max=heights[1],
            width_min=widths[0],
            width_max=widths[1],
        ),
        mean=mean,
        deviation=deviation,
        statistics_records=0 if sampled == sum(one.labels.total() for one in scanned[0]) else sampled,
        splits={split.split: _split(part, len(named.classes)) for split, part in zip(splits, scanned, strict=True)},
        source="",
        licence="",
        command="",
        notes=tuple(notes),
    )


def _split(part: list[Scanned], classes: int) -> Split:
    shards = tuple(one.shard for one in part if one.shard is not None)
    counts = tuple(sum(one.labels[label] for one in part) for label in range(classes))
    return Split(records=sum(shard.records for shard in shards), class_records=counts, shards=shards)
