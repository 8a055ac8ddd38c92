"""What a data set is, told to a person: its index, the balance of its classes, and a contact sheet."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer import storage
from trainer.data import contact, samples
from trainer.data.index import Index, Split, load_index
from trainer.errors import DataError

COLUMNS = 80
KEY_COLUMNS = 11
NAME_COLUMNS = 30
BINS = 8
SHOWN_CLASSES = 6


def run(uri: str, sheet: Path | None, out: Callable[[str], None]) -> None:
    """Gives lines of at most 80 columns to ``out`` and writes a PNG of sample images.

    Args:
        sheet: the PNG; by default NAME-contact.png in the current folder.

    Raises:
        DataError: as ``load_index``; a block that is read for the sheet is damaged; the sheet cannot be written.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    index = load_index(uri)
    for line in described(index):
        out(line)
    taken = samples.take(uri, index, next(iter(index.splits)))
    path = sheet or Path(re.sub(r"[^\w.-]+", "-", index.name).strip("-.") + "-contact.png")
    try:
        storage.atomic_write(path, contact.sheet(index, taken))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    out("")
    last = [f"contact sheet: {path}", f"  {contact.described(index, taken)}"]
    if taken.unusable:
        last.append(f"  {taken.unusable:,} records could not be shown; capsnet data verify says why")
    for line in last:
        out(line)


def described(index: Index) -> Iterator[str]:
    """All that the index says, as lines."""
    yield from _entry("name", index.name)
    yield from _entry("source", index.source)
    yield from _entry("licence", index.licence)
    yield from _entry("command", index.command)
    if index.location:
        yield from _entry("shards at", index.location)
    yield from _entry("classes", _classes(index))
    channels = index.image.channels
    kind = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")
    yield from _entry("images", f"{index.image} pixels (height x width), {kind}")
    first = next(iter(index.splits))
    counted = f"{index.statistics_records:,}" if index.statistics_records else "all"
    yield from _entry("mean", f"{_numbers(index.mean)}  of pixels as 0..1, over {counted} records of {first}")
    yield from _entry("deviation", _numbers(index.deviation))
    for note in index.notes:
        yield from _entry("note", note)
    yield ""
    yield f"{'split':<16}{'records':>12}{'shards':>10}{'size':>14}{'records a shard':>20}"
    for name, split in index.splits.items():
        yield _split_line(name, split)
    for name, split in index.splits.items():
        yield ""
        yield from balance(index, name, split)


def balance(index: Index, name: str, split: Split) -> Iterator[str]:
    """How many records each class has: a bar for each of few, a histogram of many."""
    counts = split.class_records
    if len(counts) <= samples.FEW_CLASSES:
        yield f"records of each class in {name}"
        for label, count in enumerate(counts):
            yield _bar(_titled(index, label), count, max(counts))
        return
    ordered = sorted(range(len(counts)), key=lambda label: (counts[label], label))
    yield f"records of each class in {name}"
    for word, label in (("smallest", ordered[0]), ("median", ordered[len(ordered) // 2]), ("largest", ordered[-1])):
        yield f"  {word:<9}{counts[label]:>10,}  {_cut(_titled(index, label), COLUMNS - 23)}"
    low, high = counts[ordered[0]], counts[ordered[-1]]
    width = max(1, -(-(high - low + 1) // BINS))
    bins = [0] * (-(-(high - low + 1) // width))
    for count in counts:
        bins[(count - low) // width] += 1
    yield f"classes in {name} by their records"
    for number, classes in enumerate(bins):
        start, stop = low + number * width, min(low + (number + 1) * width - 1, high)
        yield _bar(f"{start:,}" if start == stop else f"{start:,} to {stop:,}", classes, max(bins))


def _classes(index: Index) -> str:
    labels = list(range(len(index.classes)))
    if len(labels) <= samples.FEW_CLASSES:
        return f"{len(labels)}, named below"
    names = [_titled(index, label) for label in (*labels[: SHOWN_CLASSES - 1], labels[-1])]
    return f"{len(labels):,}: {'; '.join(names[:-1])}; ... ; {names[-1]}"


def _titled(index: Index, label: int) -> str:
    name = index.classes[label]
    description = contact.class_name(index, label)
    return name if description == name else f"{name} {description}"


def _split_line(name: str, split: Split) -> str:
    sizes = [shard.records for shard in split.shards]
    each = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    size = human_bytes(sum(shard.bytes for shard in split.shards))
    return f"{_cut(name, 15):<16}{split.records:>12,}{len(sizes):>10,}{size:>14}{each:>20}"


def _bar(name: str, count: int, largest: int) -> str:
    room = COLUMNS - 2 - NAME_COLUMNS - 12
    length = -(-count * room // largest) if largest else 0
    return f"  {_cut(name, NAME_COLUMNS - 1):<{NAME_COLUMNS}}{count:>10,}  {'#' * length}".rstrip()


def _entry(key: str, value: str) -> list[str]:
    """Lines of a key and its value, the latter wrapped and indented."""
    room = COLUMNS - KEY_COLUMNS
    lines = textwrap.wrap(value, room, break_on_hyphens=False) or [""]
    return [f"{key if number == 0 else '':<{KEY_COLUMNS}}{line}".rstrip() for number, line in enumerate(lines)]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 3] + "..."


def human_bytes(count: int) -> str:
    """Bytes to three digits in units of 1000."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.{0 if value >= 99.5 else 1}f} {units[0]}"
