"""Trees <split>/<class>/<image> or <class>/<image>, or as Tiny ImageNet's, in a folder or a zip file.

Names found in an archive are data; nothing is ever written under them.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path

from trainer.data.prepare import tiny
from trainer.data.prepare.request import DEFLATED, FILE, STORED, Found, Item, Report, silent
from trainer.data.prepare.tiny import Tree
from trainer.errors import DataError
from trainer.storage.local import raise_it

LICENCE = "that of the source"


def find(source: Path, name: str = "", descriptions: dict[str, str] | None = None, listing: Report = silent) -> Found:
    """Raises DataError where the tree is none of the two."""
    tree = stripped(tiny.rearranged(from_zip(source) if source.is_file() else from_folder(source, listing)))
    depths = Counter(len(parts) for parts, _ in tree if len(parts) in (2, 3))
    if not depths:
        raise DataError(
            f"{source}: holds no <class>/<image> nor <split>/<class>/<image>; see 'capsnet data prepare --help'"
        )
    depth = max(depths, key=lambda depth: depths[depth])
    fitting = [(parts, item) for parts, item in tree if len(parts) == depth]
    classes = tuple(sorted({parts[-2] for parts, _ in fitting}))
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[str, list[Item]] = {}
    for parts, item in fitting:
        splits.setdefault(parts[0] if depth == 3 else "train", []).append(item._replace(label=numbers[parts[-2]]))
    aside = [item.name for parts, item in tree if len(parts) != depth]
    notes = (f"{len(aside)} files outside the tree were left aside, the first is {aside[0]}",) if aside else ()
    named = tuple((descriptions or {}).get(name, "") for name in classes)
    return Found(
        name or source.name.removesuffix(".zip") or "images",
        classes,
        {split: splits[split] for split in sorted(splits, key=lambda split: (split != "train", split))},
        LICENCE,
        descriptions=named if any(named) else (),
        notes=notes,
    )


def from_folder(source: Path, listing: Report = silent) -> Tree:
    """All files below a folder, sorted, hidden ones left out."""
    found: Tree = []
    for at, folders, files in os.walk(source, onerror=raise_it, followlinks=True):
        here = Path(at).resolve()
        inner = [name for name in folders if not here.is_relative_to(Path(at, name).resolve())]  # no link to around it
        folders[:] = sorted(name for name in inner if not name.startswith("."))
        for file in sorted(files):
            path = Path(at, file)
            if not file.startswith(".") and path.is_file():
                parts = path.relative_to(source).parts
                found.append((parts, Item("/".join(parts), 0, str(path), 0, path.stat().st_size, FILE)))
        listing(len(found), 0)
    return found


def from_zip(source: Path) -> Tree:
    """All entries of a zip, sorted; they are read from it where they lie."""
    found: Tree = []
    try:
        with zipfile.ZipFile(source) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
    except zipfile.BadZipFile as error:
        raise DataError(f"{source}: not a whole zip file ({error}); name a folder or a zip of one") from None
    for entry in entries:
        parts = tuple(part for part in entry.filename.split("/") if part)
        if entry.is_dir() or not parts or parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts):
            continue
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{source}: {entry.filename} is encrypted or packed in a rare way; pack it again as zip")
        how = STORED if entry.compress_type == zipfile.ZIP_STORED else DEFLATED
        where = (str(source), entry.header_offset, entry.compress_size, how, entry.file_size, entry.CRC)
        found.append((parts, Item("/".join(parts), 0, *where)))
    return found


def stripped(tree: Tree) -> Tree:
    """Without a single folder around everything."""
    while tree and min(len(parts) for parts, _ in tree) > 2 and len({parts[0] for parts, _ in tree}) == 1:
        if max(len(parts) for parts, _ in tree) == 3 and tree[0][0][0] in ("train", "test", "val"):
            break
        tree = [(parts[1:], item) for parts, item in tree]
    return tree
