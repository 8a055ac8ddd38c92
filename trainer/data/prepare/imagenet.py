"""ILSVRC2012: the archives as they are downloaded, read where they lie, or folders train/<wnid> and val/.

The classes are the synset ids in sorted order, labels from 0 in that order. The devkit numbers classes otherwise: its
numbers go through meta.mat.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from trainer.data.prepare import devkit, folder, tiny
from trainer.data.prepare.devkit import Devkit
from trainer.data.prepare.request import FILE, Found, Item, Report, silent
from trainer.errors import DataError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SHARDS = {"train": 1024, "val": 128}
CLASSES = 1000
BLOCK_BYTES = 512
LICENCE = "for non-commercial research and education, under the terms of access of image-net.org"
SYNSET = re.compile(r"n\d{8}")
VAL_NUMBER = re.compile(r"_(\d{8})\.JPEG$", re.IGNORECASE)
MAPPING, WORDS = "LOC_synset_mapping.txt", "words.txt"


def is_imagenet(source: Path) -> bool:
    """Whether a folder holds the archives, or train/<synset> folders of images; or a file is one of the archives."""
    if (source / TRAIN).is_file() or source.name in (TRAIN, VAL, devkit.ARCHIVE):
        return True
    if tiny.is_tiny(source):
        return False
    train = source / "train"
    return train.is_dir() and any(SYNSET.fullmatch(path.name) for path in train.iterdir())


def find(source: Path, names: Path | None, listing: Report = silent) -> Found:
    """Raises DataError."""
    if source.is_file():
        raise DataError(f"{source}: is one file; name the folder that holds it and the other archives of ImageNet")
    kit = devkit.find(source)
    train = _train(source, listing)
    classes = tuple(sorted(train))
    numbers = {synset: number for number, synset in enumerate(classes)}
    validation = _validation(source, kit)
    strange = sorted({synset for synset, _ in validation} - set(classes))
    if strange:
        raise DataError(f"{source}: validation images are of {strange[0]}, which train lacks; complete the train set")
    splits = {
        "train": [item._replace(label=numbers[synset]) for synset in classes for item in train[synset]],
        **({"val": [item._replace(label=numbers[synset]) for synset, item in validation]} if validation else {}),
    }
    words = _words(source, names) or (kit.words if kit else {})
    described = tuple(words.get(synset, "") for synset in classes)
    notes = [] if len(classes) == CLASSES else [f"{len(classes)} classes, ILSVRC2012 has {CLASSES}"]
    return Found(
        "imagenet",
        classes,
        splits,
        LICENCE,
        descriptions=described if any(described) else (),
        shards={split: min(SHARDS[split], len(items)) for split, items in splits.items() if items},
        notes=(*notes, "labels: classes are synset ids in sorted order, numbered from 0"),
    )


def _train(source: Path, listing: Report) -> dict[str, list[Item]]:
    if (source / TRAIN).is_file():
        path, found = source / TRAIN, {}
        archives = tar_members(path)
        for number, (name, offset, size) in enumerate(archives, 1):
            synset = name.rsplit("/", 1)[-1].removesuffix(".tar")
            if not SYNSET.fullmatch(synset):
                raise DataError(f"{path}: {name} is not the archive of a synset; download {TRAIN} again")
            found[synset] = [_item(f"train/{synset}/{m}", path, o, s) for m, o, s in tar_members(path, offset, size)]
            listing(number, len(archives))
        return found
    return _by_synset(source / "train", "train", listing)


def _validation(source: Path, kit: Devkit | None) -> list[tuple[str, Item]]:
    """(synset, image) of each."""
    if (source / VAL).is_file():
        items = [_item(f"val/{name}", source / VAL, offset, size) for name, offset, size in tar_members(source / VAL)]
    elif (source / "val").is_dir():
        found = folder.from_folder(source / "val")
        flat = [item._replace(name=f"val/{item.name}") for parts, item in found if len(parts) == 1]
        if not flat:
            return [(synset, item) for synset, some in _by_synset(source / "val", "val").items() for item in some]
        items = [item for item in flat if VAL_NUMBER.search(item.name)]
    else:
        return []
    if kit is None:
        raise DataError(f"{source}: the classes of the validation images are in {devkit.ARCHIVE}; put it there too")
    pairs = []
    for item in sorted(items):
        number = VAL_NUMBER.search(item.name)
        if number is None:
            raise DataError(f"{source}: {item.name} is not named as a validation image; download {VAL} again")
        pairs.append((kit.synset(int(number[1])), item))
    return pairs


def _by_synset(top: Path, split: str, listing: Report = silent) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for parts, item in folder.from_folder(top, listing):
        if len(parts) == 2 and SYNSET.fullmatch(parts[0]):
            found.setdefault(parts[0], []).append(item._replace(name=f"{split}/{item.name}"))
    if not found:
        raise DataError(f"{top}: holds no folders n######## of images; put {TRAIN} or such folders there")
    return found


def _item(name: str, path: Path, offset: int, size: int) -> Item:
    return Item(name, 0, str(path), offset, size, FILE)


def tar_members(path: Path, start: int = 0, size: int | None = None) -> list[tuple[str, int, int]]:
    """(name, offset in the file, bytes) of the files of a tar, which may lie in another; only headers are read.

    Raises:
        DataError: it does not end as a tar does, or a member lies beyond its end.
    """
    limit = path.stat().st_size if size is None else start + size
    members, end = [], start
    try:
        with open(path, "rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > limit:
                        raise DataError(f"{path}: cut short in {member.name}; download it again")
                    end = member.offset_data + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
                    if member.isfile():
                        members.append((member.name, member.offset_data, member.size))
            file.seek(end)
            if end + BLOCK_BYTES > limit or file.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
                raise DataError(f"{path}: cut short or damaged at byte {end}, a tar ends in zeros; download it again")
    except tarfile.TarError as error:
        raise DataError(f"{path}: damaged at byte {start} or after ({error}); download it again") from None
    return sorted(members)


def _words(source: Path, names: Path | None) -> dict[str, str]:
    path = names or next((source / name for name in (MAPPING, WORDS) if (source / name).is_file()), None)
    return read_words(path) if path is not None else {}


def read_words(path: Path) -> dict[str, str]:
    """Human names of classes, from lines 'CLASS names'. Raises DataError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give lines of synset id and names") from None
    return {words[0]: words[1].strip() for line in lines if len(words := line.split(maxsplit=1)) == 2}
