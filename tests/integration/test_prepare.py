"""``capsnet data prepare`` as a person runs it: what it writes, keeps, refuses, and survives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.integration.conftest import Bucket
from tests.integration.harness import PATIENCE
from tests.unit.data.prepare import sources
from trainer import configs, optimizer, storage
from trainer.config import with_overrides
from trainer.data import fitting, inspect, verify
from trainer.data.index import Index, check_fits, load_index
from trainer.data.pipeline import train_batches
from trainer.data.records import read_block
from trainer.data.source import Source
from trainer.data.tfrecord import decode_example
from trainer.distributed import World
from trainer.errors import EXIT_INTERRUPTED
from trainer.model.network import build
from trainer.step import LossScale, make_step

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "trainer", "data", "prepare", *map(str, arguments)]


def prepare(*arguments: object, code: int = 0) -> str:
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == code, ended.stderr
    return ended.stdout if code == 0 else ended.stderr


def files(folder: Path) -> dict[str, bytes]:
    """Without the command line that the index holds."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lines = found["index.json"].splitlines()
    found["index.json"] = b"\n".join(line for line in lines if b'"command"' not in line)
    return found


def names(folder: Path, split: str) -> list[str]:
    index = load_index(str(folder))
    source = Source(folder, index.splits[split])
    return [
        decode_example(record)["image/name"][0].decode()
        for shard, entry in enumerate(index.splits[split].shards)
        for block in range(len(entry.blocks))
        for record in read_block(source, shard, block)
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources.zipped(tmp_path_factory.mktemp("source") / "set.zip", sources.tree(200))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "out"
    prepare(source, folder, "--workers", 1)
    return folder


def test_same_bytes_at_any_number_of_workers(source: Path, whole: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", "--workers", 3)
    assert files(tmp_path / "out") == files(whole)


def test_records_are_truly_shuffled_by_the_seed(source: Path, whole: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", "--seed", 7)
    first, second = names(whole, "train"), names(tmp_path / "out", "train")
    assert sorted(first) == sorted(second)
    assert first != second
    places = np.argsort(np.argsort(first))
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.2
    for shard in load_index(str(whole)).splits["train"].shards:
        assert shard.records == 25
    labels = np.array(["bee" in name for name in first]).reshape(16, 25).mean(axis=1)
    assert labels.min() > 0.1
    assert labels.max() < 0.9


def test_survives_kill_at_random_moments(source: Path, whole: Path, tmp_path: Path) -> None:
    draws, folder = random.Random(4), tmp_path / "out"
    killed = 0
    for _ in range(6):
        process = subprocess.Popen(command(source, folder, "--workers", 2), stdout=subprocess.DEVNULL)
        time.sleep(draws.uniform(0.2, 1.2))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed
    prepare(source, folder)
    assert files(folder) == files(whole)


def test_only_missing_or_damaged_shards_are_made_again(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare(source, folder)
    before = files(folder)
    shards = sorted(folder.glob("*.tfrecord"))
    shards[3].unlink()
    data = bytearray(shards[5].read_bytes())
    data[100] ^= 1
    shards[5].write_bytes(data)
    times = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    assert "made 2 shards, kept 18" in prepare(source, folder)
    assert files(folder) == before
    assert {path for path in times if path.stat().st_mtime_ns != times[path]} == {shards[5]}
    assert "complete already" in prepare(source, folder)


def test_nothing_else_is_overwritten(source: Path, whole: Path, tmp_path: Path) -> None:
    before = files(whole)
    assert "holds another data set, set" in prepare(source, whole, "--seed", 9, code=2)
    assert files(whole) == before
    (tmp_path / "letter.txt").write_text("dear")
    assert "holds letter.txt, not of this data set" in prepare(source, tmp_path, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_bad_images_are_listed_and_above_a_share_fatal(tmp_path: Path) -> None:
    tree = sources.tree(20)
    tree["train/ant/cut.jpg"] = sources.jpeg(1, 64)[:500]
    tree["train/bee/note.jpg"] = b"not an image"
    tree["train/bee/odd.JPEG"] = sources.encoded(sources.Image.fromarray(sources.pixels(5)), "PNG")
    source = sources.spread(tmp_path / "in", tree)
    told = prepare(source, tmp_path / "out", "--bad-share", 0, code=2)
    assert "more than --bad-share 0" in told
    assert not (tmp_path / "out" / "index.json").exists()
    told = prepare(source, tmp_path / "out", "--bad-share", 0.1)
    assert "skipped, cannot be decoded: 2" in told
    assert "converted: 1" in told
    listed = (tmp_path / "out" / "oddities.txt").read_text()
    assert all(name in listed for name in ("train/ant/cut.jpg", "train/bee/note.jpg", "train/bee/odd.JPEG"))


def test_imagenet_archives(tmp_path: Path) -> None:
    source = sources.ilsvrc(tmp_path / "in", 40)
    prepare(source, tmp_path / "out", "--shards", "train=8,val=2")
    index = load_index(str(tmp_path / "out"))
    assert index.splits["train"].class_records == (40, 40, 40)
    assert index.splits["val"].class_records == (2, 2, 2)


@pytest.mark.skipif(not (SHARED / "imagenet-samples.zip").exists(), reason="shared/data/imagenet-samples.zip is absent")
def test_imagenet_samples(tmp_path: Path) -> None:
    prepare(SHARED / "imagenet-samples.zip", tmp_path / "out")
    index = load_index(str(tmp_path / "out"))
    assert [split.records for split in index.splits.values()] == [180, 20]
    assert len(index.classes) == 200
    told: list[str] = []
    assert verify.run(str(tmp_path / "out"), 2, told.append) == 0
    assert told[-1] == "200 records in 20 shards verified, no fault"
    inspect.run(str(tmp_path / "out"), tmp_path / "sheet.png", told.append)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 500
    for size in (64, 224):
        trained(index, tmp_path / "out", size)


def trained(index: Index, folder: Path, size: int) -> None:
    """Two steps of a small network with the recipe's kinds of parts, on the data as the recipe takes it."""
    smaller = {
        "data.uri": str(folder),
        "model.image_size": size,
        "model.stem.channels": "8,8,8,8",
        "model.primary.types": 2,
        "model.head.rank": 4,
        "model.routing.xla": False,
        "train.global_batch_size": 16,
    }
    config = with_overrides(configs.load("imagenet"), {**fitting.overrides(index), **smaller})
    check_fits(index, config)
    net = build(config.model, precision=config.train.precision, seed=config.seed)
    update = optimizer.build_optimizer(config.optimizer, net.trainable_variables)
    rate = optimizer.learning_rate(config.optimizer, 2, 2)
    counter = tf.Variable(0, dtype=tf.int64, trainable=False)
    step = make_step(config, net, update, rate, LossScale.create(config), counter, World())
    with train_batches(config, index, 0, 1, 0, 2) as batches:
        reports = [step(batch, 0) for batch in batches]
    assert [report.applied for report in reports] == [True, True]


def test_into_a_bucket_and_on_from_a_part(source: Path, whole: Path, bucket: Bucket) -> None:
    uri = f"{bucket.uri}/set"
    prepare(source, uri)
    index, local = load_index(uri), load_index(str(whole))
    assert index.splits == local.splits
    assert sorted(bucket.names()) == sorted(f"set/{path.name}" for path in whole.iterdir())
    storage.delete(f"{uri}/train-00004-of-00016.tfrecord")
    bucket.put("set/train-00005-of-00016.tfrecord", b"other")
    assert "made 2 shards, kept 18" in prepare(source, uri)
    assert load_index(uri) == index


def test_ctrl_c_leaves_no_process_and_can_go_on(source: Path, whole: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(source, tmp_path / "out", "--workers", 2), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (tmp_path / "out" / "_prepare" / "plan.json").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == EXIT_INTERRUPTED
    while _runs(process.pid):  # pytest's timeout ends it
        time.sleep(0.1)
    prepare(source, tmp_path / "out")
    assert files(tmp_path / "out") == files(whole)


def test_kill_leaves_no_worker(source: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(source, tmp_path / "out", "--workers", 2), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not list((tmp_path / "out").glob("*.tfrecord")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    while _runs(process.pid):  # pytest's timeout ends it
        time.sleep(0.1)


def _runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
