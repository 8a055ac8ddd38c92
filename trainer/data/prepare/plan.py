"""What goes where: items truly shuffled by the seed, cut into shards, and a fingerprint of all of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trainer import storage
from trainer.data.prepare.request import Found, Item, Request
from trainer.data.shards import BLOCK_RECORDS
from trainer.errors import ConfigError, DataError

SHARD_BYTES = 128 * 2**20
FEWEST = {"train": 16}
FEWEST_OTHER = 4
HOLD_OUT, SHUFFLE = 1, 2
TEST_NAMES = ("test", "val", "valid", "validation")


class Job(NamedTuple):
    """One shard: its file, its items in their order."""

    split: str
    file: str
    items: list[Item]


@dataclass(frozen=True)
class Plan:
    found: Found
    jobs: tuple[Job, ...]
    fingerprint: str
    notes: tuple[str, ...] = field(default=())

    @property
    def records(self) -> int:
        return sum(len(job.items) for job in self.jobs)


def made(found: Found, request: Request) -> Plan:
    """The plan for what was found. Raises ConfigError at --shards that do not fit, DataError at an empty split."""
    splits, notes = _with_test(found, request)
    unknown = set(request.shards) - set(splits)
    if unknown:
        raise ConfigError(f"--shards names {', '.join(sorted(unknown))}; the splits are {', '.join(splits)}")
    jobs: list[Job] = []
    digest = hashlib.sha256(repr((found.name, found.classes, found.descriptions, request.seed, BLOCK_RECORDS)).encode())
    for split, items in splits.items():
        if not items:
            raise DataError(f"split {split} of {request.source} holds no images; check the source")
        shuffled = [items[number] for number in permutation(len(items), request.seed, SHUFFLE, split)]
        count = request.shards.get(split) or found.shards.get(split) or _shards(split, items)
        if not 1 <= count <= len(items):
            raise ConfigError(f"--shards {split}={count}: give 1 to {len(items)}, the images of that split")
        for number in range(count):
            part = shuffled[len(items) * number // count : len(items) * (number + 1) // count]
            jobs.append(Job(split, f"{split}-{number:05d}-of-{count:05d}.tfrecord", part))
            digest.update(repr([(jobs[-1].file, [(i.name, i.label, i.length, i.crc32) for i in part])]).encode())
    return Plan(found, tuple(jobs), digest.hexdigest()[:16], notes)


def permutation(count: int, seed: int, purpose: int, key: str) -> list[int]:
    """By sorting raw bits: NumPy promises the streams of its bit generators, not those of Generator's methods."""
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, storage.crc32c(key.encode()))))
    return [int(number) for number in np.argsort(bits.random_raw(count), kind="stable")]


def _shards(split: str, items: list[Item]) -> int:
    wanted = -(-sum(item.length for item in items) // SHARD_BYTES)
    return min(max(wanted, FEWEST.get(split, FEWEST_OTHER)), len(items))


def _with_test(found: Found, request: Request) -> tuple[dict[str, list[Item]], tuple[str, ...]]:
    """The splits, with a share held out of the first where there is none to evaluate."""
    splits = found.splits
    if any(name in splits for name in TEST_NAMES) or len(splits) > 1:
        return splits, found.notes
    name, items = next(iter(splits.items()))
    if not 0 < request.held_out < 1:
        raise ConfigError(f"--held-out {request.held_out}: give a share between 0 and 1")
    classes: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        classes.setdefault(item.label, []).append(number)
    held: set[int] = set()
    for label, numbers in classes.items():
        order = permutation(len(numbers), request.seed, HOLD_OUT, found.classes[label])
        held |= {numbers[at] for at in order[: round(len(numbers) * request.held_out)]}
    how = "of each class"
    if not held:
        order = permutation(len(items), request.seed, HOLD_OUT, "")
        held = set(order[: max(1, round(len(items) * request.held_out))])
        how = "of all images, since classes have too few"
    train = [item for number, item in enumerate(items) if number not in held]
    test = [item for number, item in enumerate(items) if number in held]
    note = f"test holds {request.held_out:g} {how}, chosen by seed {request.seed}"
    return {name: train, "test": test}, (*found.notes, note)
