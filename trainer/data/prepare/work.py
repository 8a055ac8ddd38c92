"""The making of one shard, in a process of its own: read, look at, frame, write, note what was seen beside it."""

from __future__ import annotations

from trainer import storage
from trainer.data.index import Shard
from trainer.data.prepare.images import BadImage, Looked, look, png_of_planes
from trainer.data.prepare.plan import Job
from trainer.data.prepare.request import CIFAR, Item
from trainer.data.prepare.seen import Oddity, Seen, Sums, note_place
from trainer.data.shards import BLOCK_RECORDS, laid_out
from trainer.data.tfrecord import encode_example, frame

SAMPLED = 16


def make_shard(destination: storage.Location, job: Job, classes: int, plan: str) -> Seen:
    """Writes a shard and then the note of it. Raises OSError, StorageError, StorageRefused where it cannot."""
    framed: list[bytes] = []
    class_records = [0] * classes
    sums: dict[int, Sums] = {}
    sizes: list[tuple[int, int]] = []
    skipped: list[Oddity] = []
    converted: list[Oddity] = []
    for number, item in enumerate(job.items):
        try:
            looked = _looked(item, sampled=number % SAMPLED == 0)
        except (BadImage, ValueError) as error:
            skipped.append(Oddity(item.name, str(error)))
            continue
        framed.append(frame(encode_example(_example(item, looked))))
        class_records[item.label] += 1
        sizes.append((looked.height, looked.width))
        sums[looked.channels] = sums.get(looked.channels, Sums.none(looked.channels)).plus(looked.sums)
        if looked.converted:
            converted.append(Oddity(item.name, looked.converted))
    shard = None
    if framed:
        shard = _write(destination, job.file, framed)
    seen = Seen(
        plan=plan,
        split=job.split,
        shard=shard,
        class_records=tuple(class_records),
        sums=sums,
        heights=(min(h for h, _ in sizes), max(h for h, _ in sizes)) if sizes else (0, 0),
        widths=(min(w for _, w in sizes), max(w for _, w in sizes)) if sizes else (0, 0),
        skipped=tuple(skipped),
        converted=tuple(converted),
    )
    storage.atomic_write(note_place(destination, job.file), seen.model_dump_json().encode())
    return seen


def _write(destination: storage.Location, file: str, framed: list[bytes]) -> Shard:
    whole, shard = laid_out(file, framed, BLOCK_RECORDS)
    storage.atomic_write(storage.join(destination, file), whole)
    return shard


def _looked(item: Item, sampled: bool) -> Looked:
    data = item.read()
    if item.how == CIFAR:
        data = png_of_planes(data)
    return look(data, item.name, sampled)


def _example(item: Item, looked: Looked) -> dict[str, bytes | int]:
    return {
        "image/encoded": looked.encoded,
        "image/format": looked.format.encode(),
        "image/class/label": item.label,
        "image/height": looked.height,
        "image/width": looked.width,
        "image/name": item.name.encode(errors="surrogateescape"),
    }
