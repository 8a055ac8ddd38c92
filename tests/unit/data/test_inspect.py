from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.data import foreign_sets
from tests.unit.data.small_sets import SmallSet, png
from trainer.data import contact, samples
from trainer.data.foreign import write_index
from trainer.data.index import Index
from trainer.data.inspect import balance, human_bytes, run
from trainer.data.shards import Record, Source, write_dataset
from trainer.errors import DataError

MakeSet = Callable[..., SmallSet]


def inspected(uri: Path | str, sheet: Path | None) -> list[str]:
    lines: list[str] = []
    run(str(uri), sheet, lines.append)
    assert not any("\n" in line for line in lines)
    assert max(len(line) for line in lines if not line.startswith("contact sheet: ")) <= 80  # a path stays in one piece
    return lines


def many_classes(folder: Path, classes: int, size: tuple[int, int] = (30, 40)) -> Index:
    """Two gray images of each class, as bright as the class says."""
    records = [
        Record(png(np.full(size, number * 7919 % classes % 256, np.uint8)), number * 7919 % classes, f"r{number}")
        for number in range(2 * classes)
    ]
    return write_dataset(
        folder,
        {"train": Source(records, len(records), 4)},
        name=f"many / {classes}",
        classes=tuple(f"class-{number}" for number in range(classes)),
        source="here " * 40,
        licence="none",
        command="pytest",
    )


def test_the_embedded_set_is_described(tmp_path: Path) -> None:
    lines = inspected("embedded", tmp_path / "sheet.png")
    text = "\n".join(lines)
    for part in (
        "fashion-mnist-balanced-12k",
        "MIT",
        "embed_fashion_mnist.py",
        "28x28 pixels",
        "0.2858",
        "all records",
    ):
        assert part in text
    assert f"{'train':<16}{'10,000':>12}{16:>10}{'6.8 MB':>14}{625:>20}" in lines
    assert sum(line.startswith("  trousers ") and line.endswith("#" * 36) for line in lines) == 2
    image = Image.open(tmp_path / "sheet.png")
    assert (image.format, image.width) == ("PNG", 1168)


def test_the_sheet_is_the_same_each_time_and_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert inspected("embedded", None)[-2] == "contact sheet: fashion-mnist-balanced-12k-contact.png"
    inspected("embedded", tmp_path / "again.png")
    first = (tmp_path / "fashion-mnist-balanced-12k-contact.png").read_bytes()
    assert first == (tmp_path / "again.png").read_bytes()


@pytest.mark.parametrize(("classes", "shown"), [(2, 2), (20, 20), (21, 21), (100, 100), (150, 100), (1000, 100)])
def test_many_classes_are_chosen_evenly(tmp_path: Path, classes: int, shown: int) -> None:
    index = many_classes(tmp_path / "set", classes)
    taken = samples.take(str(tmp_path / "set"), index, "train")
    labels = sorted(taken.images)
    assert len(labels) == shown
    assert {len(images) for images in taken.images.values()} == {2 if classes <= 20 else 1}
    assert max(np.diff(labels)) <= 3 * classes // shown
    for label, images in taken.images.items():
        for image in images:
            assert np.asarray(Image.open(io.BytesIO(image)))[0, 0] == label % 256
    image = Image.open(io.BytesIO(contact.sheet(index, taken)))
    assert max(image.size) < 2600
    lines = inspected(tmp_path / "set", tmp_path / "sheet.png")
    assert f" {classes:,} classes" in lines[-1]


def test_of_many_classes_few_blocks_are_read(tmp_path: Path) -> None:
    index = many_classes(tmp_path / "set", 1000, (4, 4))
    assert samples.take(str(tmp_path / "set"), index, "train").records < 600


def test_images_keep_their_aspect(tmp_path: Path) -> None:
    index = many_classes(tmp_path, 2, (300, 100))
    pixels = np.asarray(Image.open(io.BytesIO(contact.sheet(index, samples.take(str(tmp_path), index, "train")))))
    rows, columns = np.nonzero((pixels == (0, 0, 0)).all(axis=-1))
    assert (np.ptp(rows) + 1, np.ptp(columns[columns < 330]) + 1) == (112, 37)


def test_a_class_that_is_not_there_and_a_bad_image_do_not_stop_the_sheet(tmp_path: Path) -> None:
    index = many_classes(tmp_path, 3)
    taken = samples.Samples("train", {0: [b"not an image"], 2: [png(np.zeros((5, 5), np.uint8))]}, 10)
    assert contact.sheet(index, taken).startswith(b"\x89PNG")


def test_balance_of_many_classes_is_a_histogram(tmp_path: Path) -> None:
    index = many_classes(tmp_path, 100)
    counts = tuple(range(100, 200))
    split = index.splits["train"].model_copy(update={"class_records": counts})
    lines = list(balance(index, "train", split))
    assert lines[1] == "  smallest        100  class-0"
    assert lines[2] == "  median          150  class-50"
    assert lines[3] == "  largest         199  class-99"
    bars = lines[5:]
    assert [int(line[32:42]) for line in bars] == [13] * 7 + [9]
    assert bars[-1].startswith("  191 to 199 ")
    assert max(map(len, lines)) <= 80


def test_sets_of_others_are_inspected(tmp_path: Path) -> None:
    folder = foreign_sets.inception(tmp_path / "set")
    write_index(str(folder), str(tmp_path / "index"), name="x", licence="", command="c", class_names=None, report=None)
    lines = inspected(tmp_path / "index", tmp_path / "sheet.png")
    assert any(line.startswith("shards at") for line in lines)
    assert any(line.startswith("  n02 bee ") for line in lines)
    assert lines[-1] == "  up to 8 images of each of 3 classes, from 40 records"


def test_a_damaged_block_is_named(small_set: MakeSet, tmp_path: Path) -> None:
    made = small_set()
    path = made.folder / made.index.splits["train"].shards[0].file
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path.name}: record 0: wrong checksum"):
        inspected(made.folder, tmp_path / "sheet.png")


def test_a_sheet_that_cannot_be_written_is_named(small_set: MakeSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/a\.png: cannot be written"):
        inspected(small_set().folder, tmp_path / "nowhere" / "a.png")


def test_blocks_are_taken_from_everywhere() -> None:
    order = list(samples.spread(100))
    assert sorted(order) == list(range(100))
    for count in (4, 8, 16, 32):
        assert max(np.diff([0, *sorted(order[:count]), 100])) <= 2 * 128 // count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (99_600, "100 kB"), (999_600, "1.0 MB"), (15e10, "150 GB")],
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert human_bytes(int(count)) == text
