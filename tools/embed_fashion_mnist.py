"""Makes the data set that comes with the package: a balanced subset of Fashion-MNIST.

    python tools/embed_fashion_mnist.py FOLDER [DESTINATION]

FOLDER holds the four idx files as they are distributed (train-images-idx3-ubyte.gz, ...; on Debian they come with the
package dataset-fashion-mnist). DESTINATION, by default trainer/data/embedded, must not hold a data set.
The same images are chosen on every machine; the same bytes need the Pillow release named below, because others
compress the PNGs differently.
"""

from __future__ import annotations

import argparse
import gzip
import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.index import EMBEDDED, Index, folder_of
from trainer.data.shards import Record, Source, write_dataset
from trainer.errors import DataError

SEED = 2017
PILLOW = "13.0.0"
CLASSES = (
    "T-shirt or top",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# split: (prefix of the idx files, records of each class, shards)
SPLITS = {"train": ("train", 1000, 16), "test": ("t10k", 200, 4)}
LICENCE = """\
The images in this folder are a subset of Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist,
stored as PNG and otherwise unchanged.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of
this software and associated documentation files (the "Software"), to deal in
the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The unsigned bytes of a gzipped idx file, in its shape. Raises DataError where it is missing or another kind."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); name the folder of the Fashion-MNIST idx files") from None
    zero, kind, dimensions = struct.unpack_from(">HBB", data)
    if (zero, kind) != (0, 8):
        raise DataError(f"{path}: not an idx file of bytes; name the folder of the Fashion-MNIST idx files")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def chosen(labels: NDArray[np.uint8], of_each_class: int, split_number: int) -> NDArray[np.int64]:
    """Numbers of the chosen images, shuffled: as many of each class, by raw bits, which NumPy keeps stable."""
    bits = np.random.Philox(np.random.SeedSequence(SEED, spawn_key=(split_number,)))
    shuffled = np.argsort(bits.random_raw(len(labels)), kind="stable")
    rank = np.zeros(len(labels), np.int64)  # of an image among those of its class, in shuffled order
    for label in range(len(CLASSES)):
        of_class = shuffled[labels[shuffled] == label]
        rank[of_class] = np.arange(len(of_class))
    return shuffled[rank[shuffled] < of_each_class]


def records(folder: Path, split: str) -> Iterator[Record]:
    """The chosen images of a split as PNG records, in their order."""
    prefix, of_each_class, _ = SPLITS[split]
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    for number in chosen(labels, of_each_class, list(SPLITS).index(split)).tolist():
        png = io.BytesIO()
        Image.fromarray(images[number]).save(png, "PNG", optimize=True)
        yield Record(png.getvalue(), int(labels[number]), f"{prefix}/{number}")


def embed(folder: Path, destination: Path) -> Index:
    """Writes the data set with its licence. Raises DataError as ``read_idx`` and ``write_dataset`` do."""
    sources = {
        split: Source(records(folder, split), of_each_class * len(CLASSES), shards)
        for split, (_, of_each_class, shards) in SPLITS.items()
    }
    index = write_dataset(
        destination,
        sources,
        name="fashion-mnist-balanced-12k",
        classes=CLASSES,
        source=f"Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist; a balanced subset by seed {SEED}",
        licence="MIT, Zalando SE; see LICENSE beside this file",
        command="python tools/embed_fashion_mnist.py FOLDER",
    )
    (destination / "LICENSE").write_text(LICENCE)
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the gzipped idx files")
    parser.add_argument("destination", type=Path, nargs="?", default=folder_of(EMBEDDED))
    arguments = parser.parse_args()
    try:
        index = embed(arguments.folder, arguments.destination)
    except DataError as error:
        sys.exit(str(error))
    for name, split in index.splits.items():
        print(f"{name}: {split.records} records in {len(split.shards)} shards")


if __name__ == "__main__":
    main()
