"""A checkpoint on one test set after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from trainer import evaluation
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data import pipeline
from trainer.distributed import World
from trainer.progress import clock
from trainer.scoring.counts import Counts, make_count_batch
from trainer.scoring.report import Report, Subject, confidence_is, report
from trainer.scoring.request import TestName, config_for
from trainer.weights import network_of


def score(
    config: RunConfig,
    found: Checkpoint,
    tests: Sequence[TestName],
    world: World,
    mark: Callable[[int], None] = lambda number: None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Report]:
    """A report for each set as soon as it is done: every record counted once, over all ranks.

    Args:
        mark: told before each batch, by its number.
        say: a line about progress, now and then.

    Raises:
        DataError: the data does not fit, or has more damaged records than are tolerated.
        ConfigError: see ``config_for``.
    """
    index = data_index.load_index(config.data.uri, config.storage)
    data_index.check_fits(index, config)
    names = data_index.label_names(index, config)
    net = network_of(config, found)
    total = data_index.split_of(index, config.data.test_split).records
    for test in tests:
        of_test = config_for(config, test)
        counts, count, began, seen = Counts.none(of_test), make_count_batch(of_test, net), time.monotonic(), 0
        with pipeline.test_batches(of_test, index, world.rank, world.size) as batches:
            for number, batch in enumerate(batches):
                mark(number)
                count(counts, batch)
                seen += len(batch["image"]) * world.size
                left = (time.monotonic() - began) / seen * max(total - seen, 0)
                say(f"{test}: {min(seen, total):,} of {total:,} records, ETA {clock(left)}")
        counts = counts.over_ranks(world)
        evaluation.check_complete(of_test, index, evaluation.Score(round(counts.values_V[0]), {}, stopped=False))
        subject = Subject(
            test=test,
            data=index.name,
            split=config.data.test_split,
            step=found.state.step,
            objects=of_test.objects,
            confidence=confidence_is(of_test.loss),
        )
        yield report(subject, counts, evaluation.value_names(of_test), names)
