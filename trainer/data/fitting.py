"""What a recipe is to be told so that it trains on a data set."""

from __future__ import annotations

from trainer.data.index import Index, Split, steps_per_epoch

SMALLEST, LARGEST = 28, 128
"""Sides of images that recipes take as they are: the convolutions of some need the one, and above the other the
transforms of those that have one for each position, of hundreds of millions of numbers, may not fit in memory."""
LANES, BATCH = 8, 256
"""The most that a recipe has of each."""


def overrides(index: Index) -> dict[str, str]:
    """Names and values of the options of ``capsnet train``, whatever the recipe."""
    first = next(iter(index.splits))
    train = "train" if "train" in index.splits else first
    test = "test" if "test" in index.splits else list(index.splits)[-1]
    said = {"model.classes": str(len(index.classes)), "model.channels": str(index.image.channels), **_fit(index)}
    if train != "train":
        said["data.train_split"] = train
    return {**said, "data.test_split": test, **_shares(index.splits[train])}


def _fit(index: Index) -> dict[str, str]:
    image = index.image
    if not image.uniform or image.height_max != image.width_max or image.height_max > LARGEST:
        return {"data.augment.resize": "random_resized_crop"}
    if image.height_max < SMALLEST:
        return {"data.augment.resize": "whole"}
    return {"model.image_size": str(image.height_max)}


def _shares(split: Split) -> dict[str, str]:
    """Lanes and batch, powers of two, where there are less shards or records than any recipe may want."""
    lanes, batch = LANES, BATCH
    while lanes > len(split.shards):
        lanes //= 2
    while batch > lanes and not steps_per_epoch(split, lanes, batch):
        batch //= 2
    said = {"data.lanes": str(lanes)} if lanes < LANES else {}
    return said | ({"train.global_batch_size": str(batch)} if batch < BATCH else {})
