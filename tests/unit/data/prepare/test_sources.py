"""What is found in each kind of source."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.data.prepare import sources
from trainer.data.prepare import cifar, devkit, folder, imagenet, run
from trainer.data.prepare.images import png_of_planes
from trainer.errors import DataError


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class would be missing, and the labels of others be moved."""
    for name in ("cat", "dog", "emu"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "one.jpg").write_bytes(sources.jpeg(1))
    scan = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    assert len(folder.from_folder(tmp_path)) == 3
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="dog"):
        folder.from_folder(tmp_path)


def test_links_to_folders_are_followed_but_not_around(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "one.jpg").write_bytes(sources.jpeg(1))
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "two.jpg").write_bytes(sources.jpeg(2))
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set")
    assert [parts for parts, _ in folder.from_folder(tmp_path / "set")] == [("cat", "two.jpg"), ("dog", "one.jpg")]


def test_a_packed_entry_of_a_zip_may_be_as_long_as_what_is_in_it(tmp_path: Path) -> None:
    lengths = {}
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for zeros in range(40):
            lengths[f"{zeros}.jpg"] = np.random.default_rng(0).bytes(100) + bytes(zeros)
            archive.writestr(f"{zeros}.jpg", lengths[f"{zeros}.jpg"])
        same = [entry for entry in archive.infolist() if entry.compress_size == entry.file_size]
    assert same
    for parts, item in folder.from_zip(tmp_path / "set.zip"):
        assert item.read() == lengths[parts[-1]]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_archive_and_folder_hold_the_same(tmp_path: Path, kind: str) -> None:
    path, official = sources.cifar_archive(tmp_path, kind)
    found = cifar.find(path, kind, official)
    import tarfile

    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert cifar.find(tmp_path / "unpacked", kind, official) == found
    assert found.classes == tuple(f"class{number}" for number in range(10))
    for first, split in ((0, "train"), (6 * len(official.train), "test")):
        for number, item in enumerate(found.splits[split], first):
            assert item.label == number % 10
            image = np.asarray(Image.open(io.BytesIO(png_of_planes(item.read()))))
            np.testing.assert_array_equal(image, sources.pixels(number, 32))


def test_cifar_says_where_an_archive_differs(tmp_path: Path) -> None:
    path, official = sources.cifar_archive(tmp_path, "cifar10")
    with pytest.raises(DataError, match=rf"has {official.bytes} bytes, cifar-10-binary.tar.gz has 170052171"):
        cifar.find(path, "cifar10")
    with pytest.raises(DataError, match=rf"its md5 is {official.md5}, that of .* {'0' * 32}"):
        cifar.find(path, "cifar10", official._replace(md5="0" * 32))


def test_imagenet_archives_are_read_where_they_lie(tmp_path: Path) -> None:
    source = sources.ilsvrc(tmp_path / "in")
    found = imagenet.find(source, None)
    assert found.classes == ("n01000000", "n02000000", "n03000000")
    assert found.descriptions == tuple(f"words of {synset}" for synset in found.classes)
    numbers = dict(sources.SYNSETS)
    assert len(found.splits["train"]) == 15
    for item in found.splits["train"]:
        synset, image = Path(item.name).stem.split("_")
        assert found.classes[item.label] == synset
        (number,) = [number for number, name in sources.SYNSETS if name == synset]
        assert item.read() == sources.jpeg(100 * number + int(image))
    labels = []
    for number, item in enumerate(found.splits["val"], 1):
        assert item.read() == sources.jpeg(1000 + number)
        labels.append(found.classes[item.label])
    assert labels == [numbers[one] for one in sources.TRUTH]
    assert [found.classes.index(name) for name in labels] != [one - 1 for one in sources.TRUTH]


def test_imagenet_folders_with_a_flat_val_and_the_devkit(tmp_path: Path) -> None:
    files = {f"train/{synset}/{synset}_1.JPEG": sources.jpeg(number) for number, synset in sources.SYNSETS[:3]}
    files |= {f"val/ILSVRC2012_val_{number:08d}.JPEG": sources.jpeg(number) for number in range(1, 7)}
    files |= {f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in sources.devkit_files().items()}
    found = imagenet.find(sources.spread(tmp_path, files), None)
    numbers = dict(sources.SYNSETS)
    assert [found.classes[item.label] for item in found.splits["val"]] == [numbers[one] for one in sources.TRUTH]


def test_imagenet_validation_needs_the_devkit(tmp_path: Path) -> None:
    source = sources.ilsvrc(tmp_path)
    (source / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(DataError, match=r"ILSVRC2012_devkit_t12.tar.gz; put it there too"):
        imagenet.find(source, None)


@pytest.mark.parametrize("cut", [700, 10_752, 15_000, 21_504, 32_256])
def test_a_tar_cut_short_is_an_error(tmp_path: Path, cut: int) -> None:
    """Also between two members, where Python's tarfile sees nothing amiss."""
    path = sources.ilsvrc(tmp_path) / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="download it again"):
        imagenet.find(tmp_path, None)


@pytest.mark.parametrize("at", [10_752, 512 + 1536])
def test_a_tar_with_a_damaged_header_is_an_error(tmp_path: Path, at: int) -> None:
    """The header of a synset's archive, and that of an image in one."""
    path = sources.ilsvrc(tmp_path) / "ILSVRC2012_img_train.tar"
    data = bytearray(path.read_bytes())
    assert data[at : at + 1] == b"n"
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="download it again"):
        imagenet.find(tmp_path, None)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_hold_the_same(tmp_path: Path, packing: int) -> None:
    files = sources.tree()
    packed = folder.find(sources.zipped(tmp_path / "x.zip", files, packing))
    spread = folder.find(sources.spread(tmp_path / "x", files))
    assert list(packed.splits) == ["train", "test"]
    for split, items in packed.splits.items():
        assert [(one.name, one.label) for one in items] == [(one.name, one.label) for one in spread.splits[split]]
        for one, other in zip(items, spread.splits[split], strict=True):
            assert one.read() == other.read() == files[one.name]


def test_names_in_a_zip_are_data(tmp_path: Path) -> None:
    good = {f"{name}/{number}.jpg": sources.jpeg(number) for name in "ab" for number in range(2)}
    evil = {f"../{name}": data for name, data in good.items()} | {"/a/9.jpg": sources.jpeg(9)}
    found = folder.find(sources.zipped(tmp_path / "in" / "x.zip", good | evil))
    assert sorted(item.name for item in found.splits["train"]) == [*sorted(good)[:2], "a/9.jpg", *sorted(good)[2:]]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.zip"]


def test_a_class_may_be_named_like_a_shard(tmp_path: Path) -> None:
    files = {f"{name}/1.jpg": sources.jpeg(1) for name in ("lily-of-the-valley", "tfrecords", "train-00000-of-00001")}
    assert run.kind_of(sources.spread(tmp_path / "flowers", files)) == "folder"
    shards = sources.spread(tmp_path / "shards", {"set-train-00000-of-00001": b""})
    assert run.kind_of(shards) == "tfrecord"


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"])
def test_an_archive_of_imagenet_is_not_a_source_alone(tmp_path: Path, name: str) -> None:
    path = sources.ilsvrc(tmp_path) / name
    assert run.kind_of(path) == "imagenet"
    with pytest.raises(DataError, match="name the folder that holds it and the other archives"):
        imagenet.find(path, None)


@pytest.mark.parametrize("at", [1, 200, 410])
def test_a_damaged_devkit_is_an_error(tmp_path: Path, at: int) -> None:
    path = sources.ilsvrc(tmp_path) / devkit.ARCHIVE
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"devkit_t12.tar.gz: cannot be unpacked .*download it again"):
        devkit.find(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet(tmp_path: Path, packed: bool) -> None:
    classes = ("n01000000", "n02000000")
    top = "tiny-imagenet-200/" if packed else ""
    files = {
        f"{top}train/{name}/images/{name}_{number}.JPEG": sources.jpeg(number) for name in classes for number in (0, 1)
    }
    files |= {f"{top}train/{name}/{name}_boxes.txt": b"0 0 9 9" for name in classes}
    files |= {f"{top}{split}/images/{split}_{number}.JPEG": b"" for split in ("val", "test") for number in (0, 1)}
    files |= {
        f"{top}val/val_annotations.txt": b"val_0.JPEG\tn02000000\t0\t0\t9\t9\nval_1.JPEG\tn01000000\t0\t0\t9\t9\n"
    }
    files |= {f"{top}{name}": b"" for name in ("wnids.txt", "words.txt")}
    source = sources.zipped(tmp_path / "x.zip", files) if packed else sources.spread(tmp_path / "x", files)
    assert run.kind_of(source) == "folder"
    found = folder.find(source)
    assert found.classes == classes
    assert [item.label for item in found.splits["train"]] == [0, 0, 1, 1]
    assert [(Path(item.name).name, item.label) for item in found.splits["val"]] == [
        ("val_0.JPEG", 1),
        ("val_1.JPEG", 0),
    ]
    assert "7 files outside the tree were left aside" in found.notes[0]
