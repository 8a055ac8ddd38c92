"""Small sources as people have them: archives, trees and odd files, made here."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from trainer.data.prepare.cifar import KINDS, Official

# (ILSVRC2012_ID, synset): the IDs are not in the order of the synsets; 4 is no leaf
SYNSETS = ((1, "n03000000"), (2, "n01000000"), (3, "n02000000"), (4, "n00000001"))
TRUTH = (2, 3, 1, 1, 2, 3)


def pixels(number: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def colours(path: Path, train: int, test: int) -> Path:
    """A zip of 32x32 colour images in ten classes, as lossless files, so many of each class."""
    files = {
        f"{split}/{name}/{number}.png": encoded(Image.fromarray(pixels(97 * number + name, 32)), "PNG")
        for split, count in (("train", train), ("test", test))
        for name in range(10)
        for number in range(count)
    }
    return zipped(path, files)


def jpeg(number: int, side: int = 8) -> bytes:
    return encoded(Image.fromarray(pixels(number, side)))


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cifar_records(labels: int, count: int, first: int) -> bytes:
    """Record n has class n % 10 (coarse label 19 before it where there are two) and planes of its own."""
    parts = []
    for number in range(first, first + count):
        planes = pixels(number, 32).transpose(2, 0, 1).tobytes()
        parts.append(bytes([19] * (labels - 1) + [number % 10]) + planes)
    return b"".join(parts)


def cifar_archive(folder: Path, kind: str, count: int = 6) -> tuple[Path, Official]:
    official = KINDS[kind]
    names = (*official.train, *official.test)
    top = "cifar-10-batches-bin"
    files = {f"{top}/{name}": cifar_records(official.labels, count, at * count) for at, name in enumerate(names)} | {
        f"{top}/{official.names}": "\n".join(f"class{number}" for number in range(10)).encode() + b"\n\n"
    }
    path = folder / official.archive
    path.write_bytes(tar_of(files, "w:gz"))
    data = path.read_bytes()
    return path, official._replace(bytes=len(data), md5=hashlib.md5(data).hexdigest())


def devkit_files() -> dict[str, bytes]:
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = np.array([(i, synset, f"words of {synset}", int(i == 4)) for i, synset in SYNSETS], dtype=kind)
    meta = io.BytesIO()
    savemat(meta, {"synsets": rows.reshape(-1, 1)})
    return {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": "\n".join(map(str, TRUTH)).encode()}


def ilsvrc(folder: Path, images: int = 5) -> Path:
    """The three archives with small images; the image of validation number n is jpeg(1000 + n)."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = {}
    for number, synset in SYNSETS[:3]:
        files = {f"{synset}_{image}.JPEG": jpeg(100 * number + image) for image in range(images)}
        inner[f"{synset}.tar"] = tar_of(files)
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    val = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(1000 + number) for number in range(len(TRUTH), 0, -1)}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    kit = {f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in devkit_files().items()}
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(kit, "w:gz"))
    return folder


def tree(count: int = 20, side: int = 8) -> dict[str, bytes]:
    """<split>/<class>/<image>: ``count`` of each of two classes to train on, half as many to test."""
    return {
        f"{split}/{name}/{number:03d}.jpg": jpeg(at * 10_000 + label * 1000 + number, side)
        for at, (split, some) in enumerate((("train", count), ("test", count // 2)))
        for label, name in enumerate(("ant", "bee"))
        for number in range(some)
    }


def zipped(path: Path, files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def spread(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
