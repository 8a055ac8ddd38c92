"""What the ImageNet devkit says: which synset each number means, and the classes of the validation images."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from trainer.errors import DataError

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.mat"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


class Devkit(NamedTuple):
    """Synset of each ILSVRC2012_ID of a leaf, human names of synsets, IDs of the validation images in their order."""

    synsets: dict[int, str]
    words: dict[str, str]
    truth: tuple[int, ...]

    def synset(self, image: int) -> str:
        """Of the validation image of that number, from 1."""
        if not 1 <= image <= len(self.truth):
            raise DataError(f"validation image {image}: {TRUTH} has {len(self.truth)} lines; check the devkit")
        return self.synsets[self.truth[image - 1]]


def find(folder: Path) -> Devkit | None:
    """The devkit in a folder, packed or unpacked; None where there is none. Raises DataError where it is damaged."""
    archive = folder / ARCHIVE
    files: dict[str, bytes] = {}
    if archive.is_file():
        try:
            whole = gzip.decompress(archive.read_bytes())  # tarfile does not read as far as gzip's checksum
            with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as tar:
                for member in tar:
                    name = member.name.rsplit("/", 1)[-1]
                    content = tar.extractfile(member) if member.isfile() and name in (META, TRUTH) else None
                    if content is not None:
                        files[name] = content.read()
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{archive}: cannot be unpacked ({error}); download it again") from None
    else:
        for place in (folder, folder / "data", *(path / "data" for path in sorted(folder.glob("ILSVRC2012_devkit*")))):
            files |= {name: (place / name).read_bytes() for name in (META, TRUTH) if (place / name).is_file()}
        if not files:
            return None
    missing = [name for name in (META, TRUTH) if name not in files]
    if missing:
        raise DataError(f"{folder}: the devkit lacks {missing[0]}; download {ARCHIVE} again")
    return parsed(files[META], files[TRUTH])


def parsed(meta: bytes, truth: bytes) -> Devkit:
    """Raises DataError where the two do not fit each other."""
    import numpy as np
    from scipy.io import loadmat

    try:
        rows = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
        words = {str(row["WNID"]): str(row["words"]) for row in rows}
        numbers = tuple(int(line) for line in truth.split())
    except Exception as error:  # loadmat raises whatever it likes at damaged bytes
        raise DataError(f"{META} or {TRUTH}: cannot be read ({error}); download {ARCHIVE} again") from None
    strange = next((number for number in numbers if number not in synsets), None)
    if strange is not None:
        raise DataError(f"{TRUTH}: names class {strange}, which {META} does not hold; download {ARCHIVE} again")
    return Devkit(synsets, words, numbers)
