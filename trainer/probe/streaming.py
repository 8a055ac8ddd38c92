"""A cell of a study of data: images/s of the input alone, from a simulated bucket and from disk, without a network.

``python -m trainer.probe.streaming SPEC ANSWER``. Settings: ``shards``, ``mbit`` (bandwidth, all connections together),
``latency_ms`` (of each request). The images are synthetic JPEG of ``SIDE`` pixels, smooth with some noise.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig
from trainer.data.batches import STAGES
from trainer.data.index import load_index
from trainer.data.pipeline import train_batches
from trainer.probe.records import OK
from trainer.probe.watch import leave
from trainer.storage.connection import EMULATOR

IMAGES, CLASSES, SIDE = 4096, 8, 128
DISTINCT = 64
QUALITY = 85
BUCKET = "gs://simulated"


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    settings, folder = given["settings"], answer.parent
    write_images(folder / "images")
    command = [sys.executable, "-m", "trainer", "data", "prepare", str(folder / "images"), str(folder / "set" / "data")]
    shards = f"train={settings['shards']},test=1"
    subprocess.run([*command, "--shards", shards], check=True, stdout=subprocess.DEVNULL)
    base = configuration.with_overrides(configs.load(given["recipe"]), given["fields"])
    size = sum(path.stat().st_size for path in (folder / "set" / "data").glob("train-*"))
    mbit, latency = float(settings["mbit"]), float(settings["latency_ms"]) / 1e3
    words = ["-m", "trainer.probe.slow_bucket", str(folder / "set"), str(mbit * 1e6 / 8), str(latency)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            os.environ[EMULATOR] = server.stdout.readline().strip()
            near = {"data.uri": str(folder / "set" / "data")}
            one_epoch(base, near, 0)  # what is built once, and the page cache
            before = one_epoch(base, near, 0)["images_per_second"]
            there = {"data.uri": f"{BUCKET}/data", "storage.cache_dir": str(folder / "cache")}
            cold, again = one_epoch(base, there, 0), one_epoch(base, there, 1)
            disk = (before + one_epoch(base, near, 1)["images_per_second"]) / 2  # one before, one after
        finally:
            server.kill()
    rate = cold["images_per_second"]
    leave(
        answer,
        OK,
        "",
        None,
        images_per_second=rate,
        cached_images_per_second=again["images_per_second"],
        disk_images_per_second=disk,
        ratio=rate / disk,
        link_share=rate * size / IMAGES / (mbit * 1e6 / 8),
        bytes_of_image=size / IMAGES,
        **{f"wait_{stage}": cold[stage] for stage in STAGES},
    )
    return 0


def one_epoch(base: RunConfig, changes: dict[str, str], epoch: int) -> dict[str, float]:
    """Images/s of the input, from the call to the last batch, and the share of that time that each stage was waited
    for. A second epoch meets the cache as the first left it."""
    config = configuration.with_overrides(base, changes)
    index = load_index(config.data.uri, config.storage)
    steps = index.splits[config.data.train_split].records // config.train.global_batch_size
    began = time.perf_counter()
    waits = dict.fromkeys(STAGES, 0.0)
    with train_batches(config, index, 0, 1, epoch * steps, steps) as batches:
        for _ in batches:
            waits = dict(batches.waits)
    taken = time.perf_counter() - began
    images = steps * config.train.global_batch_size
    return {"images_per_second": images / taken, **{stage: seconds / taken for stage, seconds in waits.items()}}


def write_images(folder: Path) -> None:
    """``train/<class>/<image>``, a few distinct images many times, and some test images."""
    random = np.random.default_rng(0)
    encoded = [_jpeg(random) for _ in range(DISTINCT)]
    for split, count in (("train", IMAGES), ("test", CLASSES)):
        for number in range(count):
            place = folder / split / f"class-{number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:05d}.jpg").write_bytes(encoded[number % DISTINCT])


def _jpeg(random: np.random.Generator) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    noisy = np.asarray(coarse, np.float32) + random.normal(0, 12, (SIDE, SIDE, 3))
    data = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
