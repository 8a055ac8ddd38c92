"""What was seen in a shard: noted beside the shards while a data set is made, and summed up into its index."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import ValidationError

from trainer import storage
from trainer.data.index import FORMAT, ImageSize, Index, Item, Shard, Split
from trainer.data.prepare.request import Found
from trainer.data.shards import Pixels, statistics
from trainer.errors import DataError

NOTES = "_prepare"
PLAN_FILE = "plan"
ODDITIES = "oddities.txt"
COLOUR = 3


class Oddity(NamedTuple):
    """A file that was skipped or converted, and why."""

    name: str
    reason: str


class Sums(NamedTuple):
    """Whole numbers, so that the order of adding does not matter: all records, counted records, their pixels."""

    records: int
    counted: int
    pixels: int
    total: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def none(cls, channels: int) -> Self:
        return cls(0, 0, 0, (0,) * channels, (0,) * channels)

    def plus(self, image: tuple[int, tuple[int, ...], tuple[int, ...]] | None) -> Sums:
        if image is None:
            return self._replace(records=self.records + 1)
        return self.merged(Sums(1, 1, *image))

    def merged(self, other: Sums) -> Sums:
        return Sums(
            self.records + other.records,
            self.counted + other.counted,
            self.pixels + other.pixels,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def in_colour(self) -> Sums:
        """Of gray images as training sees them among colour images."""
        return self if len(self.total) == COLOUR else self._replace(total=self.total * 3, squares=self.squares * 3)


class Seen(Item):
    """One shard; ``shard`` is None where not one of its images could be decoded."""

    plan: str
    split: str
    shard: Shard | None
    class_records: tuple[int, ...]
    sums: dict[int, Sums]
    heights: tuple[int, int]
    widths: tuple[int, int]
    skipped: tuple[Oddity, ...]
    converted: tuple[Oddity, ...]


def note_place(destination: storage.Location, file: str) -> storage.Location:
    return storage.join(destination, NOTES, f"{file}.json")


def noted(data: bytes, plan: str) -> Seen | None:
    """A note as it was written; None where it is damaged or of another plan."""
    try:
        seen = Seen.model_validate_json(data)
    except ValidationError:
        return None
    return seen if seen.plan == plan else None


def index_of(found: Found, seen: list[Seen], *, plan: str, source: str, licence: str, command: str) -> Index:
    """Raises DataError where a shard would be empty."""
    whole = [(one, one.shard) for one in seen if one.shard is not None]
    if len(whole) < len(seen):
        raise DataError(
            f"{source}: not one image of some shard could be decoded; mend the images or ask for less shards"
        )
    splits: dict[str, Split] = {}
    for split in dict.fromkeys(one.split for one in seen):
        part = [(one, shard) for one, shard in whole if one.split == split]
        splits[split] = Split(
            records=sum(shard.records for _, shard in part),
            class_records=tuple(sum(counts) for counts in zip(*(one.class_records for one, _ in part), strict=True)),
            shards=tuple(shard for _, shard in part),
        )
    in_colour = any(COLOUR in one.sums for one in seen)
    first = next(iter(splits))
    total = Sums.none(COLOUR if in_colour else 1)
    for one in seen:
        if one.split == first:
            for sums in one.sums.values():
                total = total.merged(sums.in_colour() if in_colour else sums)
    heights, widths = [one.heights for one in seen], [one.widths for one in seen]
    channels = len(total.total)
    mean, deviation = statistics(Pixels(channels, (0, 0), (0, 0), total.pixels, total.total, total.squares))
    gray = sum(one.sums[1].records for one in seen if 1 in one.sums)
    notes = (f"{gray} gray images among colour images, kept as they are",) if gray and in_colour else ()
    return Index(
        format=FORMAT,
        name=found.name,
        classes=found.classes,
        descriptions=found.descriptions,
        image=ImageSize(
            channels=channels,
            height_min=min(low for low, _ in heights),
            height_max=max(high for _, high in heights),
            width_min=min(low for low, _ in widths),
            width_max=max(high for _, high in widths),
        ),
        mean=mean,
        deviation=deviation,
        statistics_records=0 if total.counted == total.records else total.counted,
        splits=splits,
        source=source,
        licence=licence or found.licence,
        command=command,
        plan=plan,
        notes=notes,
    )
