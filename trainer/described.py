"""What a run will do, in lines for a person: said when it starts, and by a dry run in the same words."""

from __future__ import annotations

from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data.index import Index, Split
from trainer.model.capsules import CapsuleLayer
from trainer.model.network import CapsNet


def data_line(config: RunConfig, index: Index) -> str:
    """What is read."""
    batch, split = config.train.global_batch_size, data_index.split_of(index, config.data.train_split)
    steps = data_index.steps_per_epoch(split, config.data.lanes, batch)
    return (
        f"data {index.name}: {split.records:,} records in {_shards(split)}, {steps} steps of {batch} an epoch "
        f"({split.records - steps * batch} other records left out each epoch), "
        f"{data_index.total_steps(config, index)} steps"
    )


def test_line(config: RunConfig, index: Index) -> str:
    """What is tested on, and when."""
    split, every = data_index.split_of(index, config.data.test_split), config.evaluate.every_epochs
    often = "at the end" if not every else "after every epoch" if every == 1 else f"every {every:g} epochs"
    return f"tests {often}, on split {config.data.test_split}: {split.records:,} records in {_shards(split)}"


def _shards(split: Split) -> str:
    count = len(split.shards)
    return f"{count} shard{'s' if count != 1 else ''}"


def rank_batch(config: RunConfig, ranks: int) -> int:
    """Records that a rank sees at once."""
    return config.train.global_batch_size // ranks // config.train.accumulate


def routing_lines(config: RunConfig, network: CapsNet, ranks: int) -> list[str]:
    """How each capsule layer routes a rank's batch, where there is a choice."""
    batch = rank_batch(config, ranks)
    layers = [layer for layer in network.layers if isinstance(layer, CapsuleLayer)]
    said = [(layer.name, layer.implementation(batch)) for layer in layers]
    return [f"routing of {name} {how}" for name, how in said if how]
