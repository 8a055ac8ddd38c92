"""The index of a data set: what its shards hold, and the checksums they are read against.

``index.json`` lies beside the shards and is written last: a folder without it is not a data set.
A block is a run of consecutive records of one shard; it is the unit of reading, so that every read is verified.
Knows nothing of TensorFlow.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer import storage
from trainer.config import RunConfig, StorageConfig
from trainer.errors import DataError

FORMAT = 1
INDEX_FILE = "index.json"
EMBEDDED = "embedded"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Crc32c = Annotated[int, Field(ge=0, lt=2**32)]
FileName = Annotated[str, Field(pattern=r"^([^/\\\s.][^/\\\s]*/)*[^/\\\s.][^/\\\s]*$")]


class Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Block(NamedTuple):
    """Consecutive records of a shard; a list of three numbers in the file, because there are many."""

    records: Positive
    bytes: Positive
    crc32c: Crc32c


class Shard(Item):
    file: FileName
    records: Positive
    bytes: Positive
    crc32c: Crc32c
    blocks: tuple[Block, ...]

    @model_validator(mode="after")
    def _blocks_add_up(self) -> Self:
        if sum(block.records for block in self.blocks) != self.records:
            raise ValueError(f"the blocks of {self.file} do not add up to its records")
        if sum(block.bytes for block in self.blocks) != self.bytes:
            raise ValueError(f"the blocks of {self.file} do not add up to its bytes")
        return self

    def first_records(self) -> tuple[int, ...]:
        """Number of the first record of each block."""
        return tuple(accumulate((block.records for block in self.blocks[:-1]), initial=0))

    def offset(self, block: int) -> int:
        """First byte of a block in the file."""
        return sum(earlier.bytes for earlier in self.blocks[:block])


class Split(Item):
    records: Positive
    class_records: tuple[Count, ...] = Field(description="records of each class, in the order of Index.classes")
    shards: tuple[Shard, ...]

    @model_validator(mode="after")
    def _shards_add_up(self) -> Self:
        if sum(shard.records for shard in self.shards) != self.records:
            raise ValueError("the shards do not add up to the records of the split")
        if sum(self.class_records) != self.records:
            raise ValueError("class_records do not add up to the records of the split")
        if len({shard.file for shard in self.shards}) != len(self.shards):
            raise ValueError("a shard file is named twice")
        return self


class ImageSize(Item):
    """Sizes in pixels over all records of all splits."""

    channels: Annotated[int, Field(ge=1, le=4)]
    height_min: Positive
    height_max: Positive
    width_min: Positive
    width_max: Positive

    @property
    def uniform(self) -> bool:
        """Whether all images share one size."""
        return self.height_min == self.height_max and self.width_min == self.width_max

    def __str__(self) -> str:
        if self.uniform:
            return f"{self.height_min}x{self.width_min}"
        return f"{self.height_min} to {self.height_max} x {self.width_min} to {self.width_max}"


class Layout(Item):
    """Where a tf.train.Example keeps what is read: data sets that others wrote differ here."""

    image: str = Field(default="image/encoded", description="key of the encoded image, PNG or JPEG")
    label: str = Field(default="image/class/label", description="key of the class number")
    first_label: int = Field(default=0, description="the class number that stands for classes[0]")


class Index(Item):
    format: int
    name: str
    classes: tuple[str, ...] = Field(min_length=2)
    descriptions: tuple[str, ...] = Field((), description="of each class, for people; none where classes say it all")
    image: ImageSize
    mean: tuple[float, ...] = Field(description="of each channel, pixels as 0..1, over the first split")
    deviation: tuple[float, ...] = Field(description="standard deviation of each channel, likewise")
    statistics_records: Count = Field(0, description="records that mean and deviation were taken over; 0: all")
    layout: Layout = Layout()
    splits: dict[str, Split] = Field(min_length=1)
    source: str
    licence: str
    command: str = Field(description="the command that made the data set")
    location: str = Field("", description="folder of the shards, where it is not that of the index")
    plan: str = Field("", description="fingerprint of what the command was asked to do")
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for name, split in self.splits.items():
            if len(split.class_records) != len(self.classes):
                raise ValueError(
                    f"split {name} counts {len(split.class_records)} classes, {len(self.classes)} are named"
                )
        if len(self.descriptions) not in (0, len(self.classes)):
            raise ValueError(f"{len(self.descriptions)} descriptions, {len(self.classes)} classes are named")
        if not len(self.mean) == len(self.deviation) == self.image.channels:
            raise ValueError("mean and deviation need one value for each channel")
        return self


def dump_index(index: Index) -> bytes:
    """The text of ``index.json``: indented, with one line for each block."""
    text = json.dumps(index.model_dump(mode="json"), indent=1)
    return (re.sub(r"\[[\d\s,]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n").encode()


def folder_of(uri: str) -> storage.Location:
    """Where a data URI points: a local folder, or gs://bucket/prefix; raises as ``storage.place``."""
    if uri == EMBEDDED:
        return Path(__file__).parent / EMBEDDED
    return storage.place(uri)


def shards_of(uri: str, index: Index) -> storage.Location:
    """Where the shards of the data set at ``uri`` are."""
    return folder_of(index.location or uri)


def load_index(uri: str, policy: StorageConfig | None = None) -> Index:
    """The index of the data set at ``uri``; every shard has been seen to be there, with the right size.

    In a bucket the checksums that the server keeps are compared as well.

    Raises:
        DataError: no such folder, an empty one, no index, one of another format or not valid, a shard that is
            missing, of the wrong size or another one than the index describes.
        ConfigError: neither a local folder nor in a bucket of Cloud Storage.
        StorageError, StorageRefused: a bucket cannot be read.
    """
    index = read_index(uri, policy)
    listed_shards(uri, index, policy)
    return index


def read_index(uri: str, policy: StorageConfig | None = None) -> Index:
    """The index alone; raises as ``load_index`` does."""
    folder = folder_of(uri)
    path = storage.join(folder, INDEX_FILE)
    if INDEX_FILE not in _listed(folder, policy):
        raise DataError(f"{path}: missing, it is written last; prepare the data set again or set data.uri to another")
    try:
        data = storage.read_bytes(path, policy)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    return _parsed(data, path)


def listed_shards(uri: str, index: Index, policy: StorageConfig | None = None) -> dict[str, storage.Entry]:
    """The files of the folder that holds the shards, each shard seen to be what the index says; raises DataError."""
    folder = shards_of(uri, index)
    entries = _listed(folder, policy)
    for split in index.splits.values():
        for shard in split.shards:
            _check_entry(storage.join(folder, shard.file), shard, entries.get(shard.file))
    return entries


def _listed(folder: storage.Location, policy: StorageConfig | None) -> dict[str, storage.Entry]:
    try:
        entries = storage.listing(folder, policy)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no such folder; set data.uri to one that holds {INDEX_FILE}, or to embedded"
        ) from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); set data.uri to a folder of shards") from None
    if not entries:
        raise DataError(f"{folder}: holds no files; put a data set there, or set data.uri to embedded")
    return entries


def _parsed(data: bytes, path: storage.Location) -> Index:
    try:
        tree: Any = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); copy or prepare the data set again") from None
    version = tree.get("format") if isinstance(tree, dict) else None
    if version != FORMAT:
        found = "no format number" if version is None else f"format {version}"
        raise DataError(f"{path}: {found}, this program reads format {FORMAT}; prepare the data set again")
    try:
        return Index.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {where + ': ' if where else ''}{reason}; prepare the data set again") from None


def _check_entry(path: storage.Location, shard: Shard, entry: storage.Entry | None) -> None:
    if entry is None:
        raise DataError(f"{path}: missing, the index lists it; copy or prepare the data set again")
    if entry.bytes != shard.bytes:
        raise DataError(
            f"{path}: has {entry.bytes} bytes, the index says {shard.bytes}; copy or prepare the data set again"
        )
    if entry.crc32c not in (None, shard.crc32c):
        raise DataError(f"{path}: not the file that the index describes (crc32c); copy or prepare the data set again")


def steps_per_epoch(split: Split, lanes: int, global_batch: int) -> int:
    """Global batches in every epoch: as many as the poorest lane has in the worst dealing of shards to lanes.

    The rest of an epoch's records, ``split.records - steps * global_batch``, is its dropped tail.
    """
    fewest = sum(sorted(shard.records for shard in split.shards)[: len(split.shards) // lanes])
    return fewest // (global_batch // lanes)


def total_steps(config: RunConfig, index: Index) -> int:
    """Steps of a whole run."""
    split = split_of(index, config.data.train_split)
    per_epoch = steps_per_epoch(split, config.data.lanes, config.train.global_batch_size)
    return max(1, round(config.train.epochs * per_epoch))


def fingerprint(index: Index) -> str:
    """Of all records of all splits in their order; the same for a copy of the data set in another place."""
    shards = [
        (name, shard.records, shard.crc32c) for name in sorted(index.splits) for shard in index.splits[name].shards
    ]
    return f"{storage.crc32c(repr(shards).encode()):08x}"


def split_of(index: Index, name: str) -> Split:
    """A split by name. Raises DataError."""
    if name not in index.splits:
        raise DataError(f"data set {index.name} has no split {name}; it has {', '.join(index.splits)}")
    return index.splits[name]


def label_names(index: Index, config: RunConfig) -> tuple[str, ...]:
    """Of what the model tells apart: classes, or each class at each angle."""
    count = config.data.rotations
    if count == 1:
        return tuple(index.classes)
    return tuple(f"{name} {360 * angle / count:g} deg" for name in index.classes for angle in range(count))


def check_fits(index: Index, config: RunConfig) -> None:
    """Whether the run can be trained and evaluated on the data set.

    Raises:
        DataError: classes, channels or image size differ from the model's, a split is missing, there are fewer
            shards than lanes, or an epoch is shorter than one global batch.
    """
    model, data = config.model, config.data
    count = len(index.classes) * data.rotations
    if count != model.classes:
        angles = f", at {data.rotations} angles {count} labels" if data.rotations > 1 else ""
        raise DataError(
            f"data set {index.name} has {len(index.classes)} classes{angles}, the model {model.classes}: "
            f"set model.classes to {count}"
        )
    if index.image.channels != model.channels:
        raise DataError(
            f"data set {index.name} has {index.image.channels} channels, the model {model.channels}: "
            f"set model.channels to {index.image.channels}"
        )
    _check_image_size(index, config)
    split = split_of(index, data.train_split)
    split_of(index, data.test_split)
    if data.lanes > len(split.shards):
        raise DataError(
            f"data set {index.name} has {len(split.shards)} shards in split {data.train_split}, fewer than data.lanes "
            f"{data.lanes}: set data.lanes to at most {len(split.shards)}"
        )
    batch = config.train.global_batch_size
    if steps_per_epoch(split, data.lanes, batch) < 1:
        raise DataError(
            f"data set {index.name} has {split.records} records in split {data.train_split}, not enough for one "
            f"train.global_batch_size of {batch} over data.lanes {data.lanes}: lower either"
        )


def _check_image_size(index: Index, config: RunConfig) -> None:
    image, size, resize = index.image, config.source_size, config.data.augment.resize
    field, taken = "model.image_size", f"the model takes {size}x{size}"
    if config.data.overlap.enabled:
        field += " (that of the images + 2 data.overlap.shift)"
        taken = f"scenes of {config.model.image_size}x{config.model.image_size} take {size}x{size}"
    if resize == "none" and not (image.uniform and image.height_min == image.width_min == size):
        raise DataError(
            f"data set {index.name} has images of {image} pixels, {taken}: set {field}, "
            "or data.augment.resize to crop, whole or random_resized_crop"
        )
    if resize == "crop" and min(image.height_min, image.width_min) < size:
        raise DataError(
            f"data set {index.name} has images of {image} pixels, too small for crops of {size}x{size}: lower "
            f"{field}, or set data.augment.resize to whole or random_resized_crop"
        )
