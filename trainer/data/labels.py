"""What a data set of others says of itself: names of classes in a file or in the records, licence, counts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainer import storage
from trainer.data.scan import Scanned
from trainer.errors import DataError

NAMES_FILE, FEATURES_FILE, INFO_FILE = "label.labels.txt", "features.json", "dataset_info.json"


@dataclass(frozen=True)
class Info:
    """What files beside the shards say; nothing where they are not there."""

    name: str = ""
    licence: str = ""
    classes: tuple[str, ...] = ()
    count: int = 0
    records: dict[str, int] = field(default_factory=dict)


class Named(NamedTuple):
    classes: tuple[str, ...]
    descriptions: tuple[str, ...]


def read_info(folder: storage.Location, entries: dict[str, storage.Entry]) -> Info:
    """Reads the files of TFDS that lie in ``folder``. Raises DataError where one cannot be understood."""
    classes: tuple[str, ...] = ()
    if NAMES_FILE in entries:
        lines = storage.read_bytes(storage.join(folder, NAMES_FILE)).decode("utf-8", "replace").splitlines()
        classes = tuple(line.strip() for line in lines if line.strip())
    features, info = (_json(folder, file, entries) for file in (FEATURES_FILE, INFO_FILE))
    splits = info.get("splits") or []
    try:
        count = features.get("featuresDict", {}).get("features", {}).get("label", {}).get("classLabel", {})
        return Info(
            name=str(info.get("name", "")),
            licence=str((info.get("redistributionInfo") or {}).get("license", "")),
            classes=classes,
            count=len(classes) or int(count.get("numClasses", 0)),
            records={
                str(split["name"]): sum(int(length) for length in split["shardLengths"])
                for split in splits
                if split.get("shardLengths")
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: {FEATURES_FILE} or {INFO_FILE} is not as TFDS writes it ({error})") from None


def chosen(names: tuple[str, ...], count: int, scanned: list[Scanned]) -> Named:
    """The classes: as named, else synsets, else texts where they are unique, else numbers.

    Raises:
        DataError: there are fewer than two, or two have one name.
    """
    synsets, texts = _merged([one.synsets for one in scanned]), _first([one.texts for one in scanned])
    highest = max(max(one.labels) for one in scanned)
    count = len(names) or max(count, highest + 1)
    if count < 2:
        raise DataError(f"all records are of one class ({names[0] if names else highest}); name a data set with more")
    described = tuple(texts.get(label, str(label)) for label in range(count))
    if names:
        if len(set(names)) != count:
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the class name {twice} is there twice; give each class a name of its own")
        return Named(names, ())
    for found in (synsets, texts):
        classes = tuple(found.get(label, f"class-{label}") for label in range(count))
        if found and len(set(classes)) == count:
            return Named(classes, described if found is synsets and texts else ())
    return Named(tuple(str(label) for label in range(count)), described if texts else ())


def _merged(parts: list[dict[int, str]]) -> dict[int, str]:
    """The names of all shards; raises DataError where two differ."""
    merged: dict[int, str] = {}
    for part in parts:
        for label, name in part.items():
            if merged.setdefault(label, name) != name:
                raise DataError(f"class number {label} is called {merged[label]} in one shard and {name} in another")
    return merged


def _first(parts: list[dict[int, str]]) -> dict[int, str]:
    return {label: name for part in reversed(parts) for label, name in part.items()}


def _json(folder: storage.Location, file: str, entries: dict[str, storage.Entry]) -> dict[str, Any]:
    if file not in entries:
        return {}
    path = storage.join(folder, file)
    try:
        tree = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); mend or remove it") from None
    return tree if isinstance(tree, dict) else {}
