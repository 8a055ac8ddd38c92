"""A checkpoint on one test set after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from trainer import config as configuration
from trainer import evaluation
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data import pipeline
from trainer.distributed import World
from trainer.errors import ConfigError
from trainer.progress import clock
from trainer.scoring.counts import counted, make_count_batch, width
from trainer.scoring.report import Report, report
from trainer.weights import network_of

TestName = Literal["plain", "affine", "overlap"]
TESTS: tuple[TestName, ...] = ("plain", "affine", "overlap")


class Scored(NamedTuple):
    report: Report
    config: RunConfig  # with which it was made


def config_for(config: RunConfig, test: TestName) -> RunConfig:
    """A run's configuration with another test set made of the same records.

    affine: each image under a random affine map within ``STANDARD_AFFINE``. overlap: pairs of different classes, laid
    over each other without a shift, as the network's canvas is that of one image; right where its two most active
    classes are both right (Sabour et al. 2017, section 6).

    Raises:
        ConfigError: a network that was trained on pairs is tested on pairs already, and has no affine set.
    """
    if test == "plain":
        return config
    if config.data.overlap.enabled:
        raise ConfigError(f"--{test}: this run was trained on pairs, and pairs are its test set: leave --{test} out")
    if test == "affine":
        return configuration.with_overrides(
            config, {f"data.affine.{name}": bound for name, bound in configuration.STANDARD_AFFINE}
        )
    pairs = {"data.overlap.enabled": True, "data.overlap.shift": 0, "data.augment.shift": 0}
    knows_pairs = {"loss.kind": "cross_entropy"} if config.loss.kind == "spread" else {}
    return configuration.with_overrides(config, {**pairs, **knows_pairs})


def tests_of(config: RunConfig) -> tuple[TestName, ...]:
    """All that a run's network can be tested on."""
    return ("plain",) if config.data.overlap.enabled else TESTS


def score(
    config: RunConfig,
    found: Checkpoint,
    tests: Sequence[TestName],
    world: World,
    mark: Callable[[int], None] = lambda number: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Scored]:
    """Every test record of each set counted once, over all ranks.

    Args:
        mark: told before each batch, by its number.
        say: a line about progress, now and then.

    Raises:
        DataError: the data does not fit, or has more damaged records than are tolerated. ConfigError: see
            ``config_for``.
    """
    index = data_index.load_index(config.data.uri, config.storage)
    data_index.check_fits(index, config)
    net = network_of(config, found)
    total = data_index.split_of(index, config.data.test_split).records
    scored = []
    for test in tests:
        of_test = config_for(config, test)
        count = make_count_batch(of_test, net)
        row, began, seen = np.zeros(width(of_test)), time.monotonic(), 0
        with pipeline.test_batches(of_test, index, world.rank, world.size) as batches:
            for number, batch in enumerate(batches):
                mark(number)
                row += count(batch).numpy()
                seen += len(batch["image"]) * world.size
                left = (time.monotonic() - began) / seen * max(total - seen, 0)
                say(f"{test}: {min(seen, total):,} of {total:,} records, ETA {clock(left)}")
        counts = counted(of_test, world, row)
        evaluation.check_complete(of_test, index, evaluation.Score(round(counts.records), {}, stopped=False))
        names = tuple(index.classes)
        scored.append(Scored(report(test, counts, names, of_test.objects), of_test))
    return scored
