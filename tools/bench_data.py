"""``make bench``, second part: what the way of the data costs, as ratios within one run.

    raw        a shard through ``trainer.storage`` against the same bytes over bare HTTP, on loopback
    training   steps of recipe quick from a bucket, from disk and from memory, with what was waited for
    decoding   ImageNet-sized JPEG to 64, 128 and 224 pixels, in whole and at reduced size
    conversion of a folder of such JPEG to shards against copying it
    memory     of a process that streams through a cache smaller than the data set: the slope

The server is fake-gcs-server, on the same cores as everything else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import requests
import tensorflow as tf

from tests.gcs import server
from trainer import bench, configs, storage
from trainer.config import with_overrides
from trainer.data import augment
from trainer.data.batches import STAGES
from trainer.data.decoding import Reading, fitted
from trainer.data.index import folder_of, load_index
from trainer.data.pipeline import tf_data_options, train_batches
from trainer.probe.photographs import photographs

BUCKET = "bench"
RAW_BYTES = 128 * 2**20
RANGE_BYTES = 8 * 2**20
STREAMED_STEPS = 20_000
CONVERTED_IMAGES = 10_000
DECODED_TIMES = 20
PHOTOGRAPHS = 64, 500, 375
"""How many, and their pixels: those of ImageNet."""


def make_bucket(endpoint: str) -> str:
    """Its address."""
    body = json.dumps({"name": BUCKET}).encode()
    request = urllib.request.Request(
        f"{endpoint}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request).close()
    return f"gs://{BUCKET}"


def put(endpoint: str, name: str, data: bytes) -> None:
    url = f"{endpoint}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
    urllib.request.urlopen(urllib.request.Request(url, data, method="POST")).close()


def put_embedded(endpoint: str) -> Path:
    embedded = Path(str(folder_of("embedded")))
    for path in embedded.iterdir():
        put(endpoint, f"set/{path.name}", path.read_bytes())
    return embedded


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def raw(endpoint: str, repeats: int) -> None:
    """Bytes per second of a large object."""
    put(endpoint, "raw", os.urandom(RAW_BYTES))
    entry = storage.listing(f"gs://{BUCKET}")["raw"]
    session = requests.Session()
    url = f"{endpoint}/download/storage/v1/b/{BUCKET}/o/raw?alt=media"

    def bare(headers: dict[str, str]) -> None:
        with session.get(url, headers=headers, stream=True) as answer:
            for _ in answer.iter_content(2**20):
                pass

    def bare_ranges() -> None:
        for at in range(0, RAW_BYTES, RANGE_BYTES):
            bare({"Range": f"bytes={at}-{at + RANGE_BYTES - 1}"})

    def ranges() -> None:
        for at in range(0, RAW_BYTES, RANGE_BYTES):
            checksum = storage.Checksum()
            for part in storage.chunks(f"gs://{BUCKET}/raw", entry, at, RANGE_BYTES):
                checksum.update(part)

    def whole() -> None:
        for _ in storage.chunks(f"gs://{BUCKET}/raw", entry):
            pass

    ways = {"bare": lambda: bare({}), "bare ranges": bare_ranges, "whole": whole, "ranges": ranges}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            rates[name].append(RAW_BYTES / seconds(way) / 1e6)
    middle = {name: statistics.median(values[1:]) for name, values in rates.items()}
    print("raw reading, MB/s:", ", ".join(f"{name} {value:.0f}" for name, value in middle.items()))
    print(f"  whole object, verified, against bare HTTP: {middle['whole'] / middle['bare']:.2f}")
    print(f"  pieces of 8 MiB, verified, against bare ranges: {middle['ranges'] / middle['bare ranges']:.2f}")


def training(endpoint: str, repeats: int, folder: Path) -> None:
    """Images per second of the real program."""
    embedded = put_embedded(endpoint)
    quiet = {"log.observe_every_steps": "0"}
    memory = tempfile.mkdtemp(dir="/dev/shm") if Path("/dev/shm").is_dir() else None
    places = {"disk": str(embedded), "bucket": f"gs://{BUCKET}/set"}
    if memory:
        for path in embedded.iterdir():
            (Path(memory) / path.name).write_bytes(path.read_bytes())
        places["memory"] = memory
    rates: dict[str, list[float]] = {name: [] for name in places}
    for repeat in range(repeats):
        for name, uri in places.items():
            cache = {"storage.cache_dir": str(folder / f"cache-{repeat}")}  # an empty one each time
            cell = bench.Cell(name, "quick", 150, fields={**quiet, "data.uri": uri, **cache}, warm_up=5)
            rates[name].append(bench.images_per_second(cell, folder, records=10_000))
    for name, values in rates.items():
        print(
            f"training from {name}: {statistics.median(values):.0f} images/s ({min(values):.0f} .. {max(values):.0f})"
        )
    for name in set(places) & {"disk", "memory"}:
        ratios = [mine / other for mine, other in zip(rates["bucket"], rates[name], strict=True)]
        print(f"  bucket against {name}: {statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})")
    records = [
        record
        for run in folder.iterdir()
        if (run / "metrics.jsonl").exists() and json.loads((run / "config.json").read_text())["data"]["uri"][:2] == "gs"
        for record in _train_records(run)
        if record["step"] > 10
    ]
    taken = statistics.mean(record["input_wait"] for record in records)
    waited = statistics.mean(sum(record[f"wait_{stage}"] for stage in STAGES) for record in records)
    print(
        f"  from the bucket, of the time: {waited:.2%} waited for input, {taken:.2%} with the taking of ready batches"
    )


def _train_records(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == "train"]


def decoding(repeats: int) -> None:
    """Images per second of one thread."""
    encoded = photographs(*PHOTOGRAPHS)
    print(f"decoding 500x375 JPEG of {statistics.mean(map(len, encoded)) / 1e3:.0f} kB, random resized crop:")
    draws = augment.draws(0, 0, np.arange(len(encoded)))
    for size in (64, 128, 224):
        rates: dict[bool, list[float]] = {True: [], False: []}
        datasets = {scaled: _decoder(encoded, draws, size, scaled) for scaled in rates}
        for _ in range(repeats + 1):
            for scaled, dataset in datasets.items():
                rates[scaled].append(DECODED_TIMES * len(encoded) / seconds(lambda dataset=dataset: list(dataset)))
        reduced, full = (statistics.median(rates[scaled][1:]) for scaled in (True, False))
        print(f"  to {size}: {reduced:.0f} images/s, {reduced / full:.2f} of decoding in whole")


def _decoder(encoded: list[bytes], draws: np.ndarray, size: int, scaled: bool) -> tf.data.Dataset:
    changes = {"model.image_size": size, "model.channels": 3, "data.scaled_decoding": scaled}
    config = with_overrides(configs.load("imagenet"), changes)
    reading = Reading(config, None, None, training=True)  # type: ignore[arg-type]
    dataset = tf.data.Dataset.from_tensor_slices((encoded, draws))
    dataset = dataset.repeat(DECODED_TIMES)  # beside which the start is little
    return dataset.map(lambda image, draws_D: fitted(image, draws_D, reading), 1).with_options(tf_data_options(1))


def conversion(repeats: int, folder: Path) -> None:
    """Images per second, files read and written included."""
    source = folder / "jpegs"
    encoded = photographs(*PHOTOGRAPHS)
    for number in range(CONVERTED_IMAGES):
        path = source / f"class{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
    ways = ("copied", "copied and synced", "converted")
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):
        copy, shards = folder / f"copy-{repeat}", folder / f"shards-{repeat}"
        command = [sys.executable, "-m", "trainer", "data", "prepare", str(source), str(shards)]
        os.sync()
        copied = seconds(partial(shutil.copytree, source, copy))
        synced = copied + seconds(os.sync)
        converted = seconds(partial(subprocess.run, command, check=True, capture_output=True))
        for way, took in zip(ways, (copied, synced, converted), strict=True):
            rates[way].append(CONVERTED_IMAGES / took)
        shutil.rmtree(copy)
        shutil.rmtree(shards)
    copied, synced, converted = (statistics.median(rates[way]) for way in ways)
    print(
        f"{CONVERTED_IMAGES} JPEG files to shards on all cores, every image decoded: {converted:.0f} images/s, "
        f"start included\n  against copying the files: {converted / copied:.2f} ({copied:.0f}/s), against copying them "
        f"and syncing, as shards are: {converted / synced:.2f} ({synced:.0f}/s)"
    )


def memory(endpoint: str, folder: Path) -> None:
    """Resident memory while streaming, epoch after epoch."""
    put_embedded(endpoint)
    changes = {
        "data.uri": f"gs://{BUCKET}/set",
        "storage.cache_dir": str(folder / "small-cache"),
        "storage.cache_bytes": "2MB",
    }
    config = with_overrides(configs.load("quick"), changes)
    points = []
    with train_batches(config, load_index(config.data.uri), 0, 1, 0, STREAMED_STEPS) as batches:
        for step, _ in enumerate(batches):
            if step >= STREAMED_STEPS // 2 and step % 10 == 0:
                points.append((step, psutil.Process().memory_info().rss / 2**20))
    slope, _ = np.polyfit(*zip(*points, strict=True), 1)
    print(
        f"memory while streaming {STREAMED_STEPS} steps through a cache of 2 MB: {points[0][1]:.0f} MiB at step "
        f"{points[0][0]}, {points[-1][1]:.0f} at the end, slope {1000 * slope:.2f} MiB in 1,000 steps"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="raw, training, decoding, conversion or memory")
    parsed, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary, server.running(advertised="http://127.0.0.1:1") as endpoint:
        os.environ["STORAGE_EMULATOR_HOST"] = endpoint
        make_bucket(endpoint)
        parts = {
            "raw": lambda: raw(endpoint, parsed.repeats),
            "training": lambda: training(endpoint, parsed.repeats, Path(temporary)),
            "decoding": lambda: decoding(parsed.repeats),
            "conversion": lambda: conversion(parsed.repeats, Path(temporary)),
            "memory": lambda: memory(endpoint, Path(temporary)),
        }
        for name, measure in parts.items():
            if parsed.only in (None, name):
                measure()
    return 0


if __name__ == "__main__":
    sys.exit(main())
