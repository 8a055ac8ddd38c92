"""A cell of a study of data: the input of training without a model. ``python -m trainer.probe.streaming SPEC ANSWER``.

Shards are made of synthetic JPEG by ``capsnet data prepare`` and served over a simulated link, or lie in a bucket that
is named. Two epochs are taken from there, the first into an empty cache, and two from local disk, turn by turn. The
first epoch's time is from the opening of the pipeline on, the second's from the end of the first: no work done ahead
goes uncounted. The batches are thrown away; a model that computes on the same cores would take its share of them.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from trainer import config as configuration
from trainer import configs
from trainer.config import RunConfig
from trainer.data.batches import STAGES
from trainer.data.index import check_fits, load_index
from trainer.data.order import train_order
from trainer.data.pipeline import train_batches
from trainer.errors import CapsnetError, ConfigError
from trainer.probe import object_server
from trainer.probe.records import ERROR, OK
from trainer.probe.slow_link import BITS
from trainer.probe.streamed_set import checked, prepared
from trainer.probe.watch import leave
from trainer.storage.connection import EMULATOR

SAMPLED_EVERY = 8
"""Steps between two looks at the size of the cache."""


@dataclass(frozen=True)
class Epochs:
    """Two in turn. ``waits``: seconds of the first by stage, its first batch apart; ``sent``: bytes over the link
    until the end of each; ``cache``: the most bytes that lay there."""

    images: int
    seconds: tuple[float, float]
    first_batch: float
    waits: dict[str, float]
    sent: tuple[int, int]
    cache: int


def main(spec: Path, answer: Path) -> int:
    given = json.loads(spec.read_text())
    try:
        settings = checked(given["settings"])
        config = configuration.with_overrides(configs.load(given["recipe"]), given["fields"])
        numbers, series = measured(config, settings, answer.parent)
    except CapsnetError as error:
        leave(answer, ERROR, str(error))
        return 0
    leave(answer, OK, "", series, **numbers)
    return 0


def measured(
    config: RunConfig, settings: Mapping[str, str], folder: Path
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Medians over the rounds, and each round. Raises CapsnetError."""
    mbit, limit = float(settings["mbit"]), int(settings["images"])
    rounds: list[tuple[Epochs, Epochs | None]] = []
    with ExitStack() as stack:
        sent, disk, uri = _nothing, "", settings["uri"]
        if not uri:
            disk, uri = str(prepared(folder, limit, int(settings["shards"]))), f"gs://{object_server.BUCKET}"
            server = stack.enter_context(object_server.serving(folder / "shards", mbit, float(settings["latency_ms"])))
            sent, os.environ[EMULATOR] = server.sent, server.endpoint
            epochs(_at(config, disk), limit, _nothing)  # a warm-up, of which nothing is kept
        for number in range(int(settings["rounds"])):
            beside = epochs(_at(config, disk), limit, _nothing) if disk else None
            cached = _at(config, uri, folder / f"cache-{number}")
            rounds.append((epochs(cached, limit, sent), beside))
        index = load_index(uri, config.storage)
    split = train_order(config, index).split
    split_bytes = sum(shard.bytes for shard in split.shards)
    numbers, series = told(rounds, split_bytes / split.records)
    if disk:
        numbers |= of_link(rounds, mbit, split_bytes)
    return numbers, series


def epochs(config: RunConfig, limit: int, sent: Callable[[], int]) -> Epochs:
    """Two epochs, or twice ``limit`` images where they are longer, through the pipeline of training."""
    index = load_index(config.data.uri, config.storage)
    check_fits(index, config)
    batch = config.train.global_batch_size
    steps = min(train_order(config, index).steps_per_epoch, limit // batch)
    if not steps:
        raise ConfigError(f"probe.images {limit}: is less than train.global_batch_size {batch}; raise it")
    before, cache, first, waits = sent(), 0, 0.0, dict.fromkeys(STAGES, 0.0)
    ends, bytes_sent = [0.0, 0.0], [0, 0]
    began = time.monotonic()
    with train_batches(config, index, 0, 1, 0, 2 * steps) as batches:
        for step, _ in enumerate(batches):
            if not step:
                first = time.monotonic() - began
            if config.storage.cache_dir and step % SAMPLED_EVERY == 0:
                cache = max(cache, _size(Path(config.storage.cache_dir)))
            if (step + 1) % steps == 0:
                epoch = step // steps
                ends[epoch], bytes_sent[epoch] = time.monotonic() - began, sent() - before
                waits = waits if epoch else dict(batches.waits)
    seconds = (ends[0], ends[1] - ends[0])
    return Epochs(steps * batch, seconds, first, waits, (bytes_sent[0], bytes_sent[1]), cache)


def told(
    rounds: list[tuple[Epochs, Epochs | None]], record_bytes: float
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What a person wants to know; ``ratio``: of the speed from disk, of the same round."""
    series = {"images_per_second": [mine.images / mine.seconds[0] for mine, _ in rounds]}
    series["second_images_per_second"] = [mine.images / mine.seconds[1] for mine, _ in rounds]
    pairs = [(mine, disk) for mine, disk in rounds if disk is not None]
    if pairs:
        series["disk_images_per_second"] = [disk.images / disk.seconds[0] for _, disk in pairs]
        series["ratio"] = [disk.seconds[0] / mine.seconds[0] for mine, disk in pairs]
        series["second_ratio"] = [disk.seconds[1] / mine.seconds[1] for mine, disk in pairs]
    numbers = {name: statistics.median(values) for name, values in series.items()}
    for name, values in series.items():
        numbers[f"{name}_spread"] = (max(values) - min(values)) / statistics.median(values)
    numbers["bytes_per_second"] = numbers["images_per_second"] * record_bytes
    numbers["first_batch_seconds"] = statistics.median(mine.first_batch for mine, _ in rounds)
    for stage in STAGES:
        numbers[f"wait_{stage}"] = statistics.median(mine.waits[stage] / mine.seconds[0] for mine, _ in rounds)
    numbers["cache_bytes"] = float(max(mine.cache for mine, _ in rounds))
    return numbers, series


def of_link(rounds: list[tuple[Epochs, Epochs | None]], mbit: float, split_bytes: int) -> dict[str, float]:
    """``link_share``: of what the link could have carried in the first epoch. ``cache_hits``: bytes of the second
    epoch that did not cross it; what was fetched for the second during the first counts as crossed."""
    mine = [each for each, _ in rounds]
    used = {"cache_hits": statistics.median(max(0.0, 2 - each.sent[1] / split_bytes) for each in mine)}
    if math.isfinite(mbit):
        used["link_share"] = statistics.median(BITS * each.sent[0] / mbit / each.seconds[0] for each in mine)
    return used


def _at(config: RunConfig, uri: str, cache: Path | None = None) -> RunConfig:
    changes = {"data.uri": uri, **({"storage.cache_dir": str(cache)} if cache else {})}
    return configuration.with_overrides(config, changes)


def _size(cache: Path) -> int:
    total = 0
    if cache.is_dir():
        with os.scandir(cache) as entries:
            for entry in entries:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:  # dropped meanwhile
                    continue
    return total


def _nothing() -> int:
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
