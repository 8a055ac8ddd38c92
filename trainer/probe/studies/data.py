"""How fast images come: from a bucket over a link, beside the same from local disk.

The bucket and its link are simulated on the machine itself. One reader leaves them a core of two: with two, nearly
all that was measured here stood below nine tenths of the speed from disk, whatever the link. With ``probe.uri`` a copy
of this file measures a real one, for which bandwidth and latency are what they are.
"""

from trainer.probe.study import Arm, Axis, Budget, Study, over

SETTINGS = {"images": "2048", "shards": "64", "mbit": "400", "latency_ms": "20"}


def imposed(name: str, setting: str, values: tuple[str, ...], arms: tuple[str, ...] = (), note: str = "") -> Axis:
    """An axis of one setting of the measure."""
    return Axis(name, {value: {f"probe.{setting}": value} for value in values}, arms, note)


STUDY = Study(
    name="data",
    about="images/s through the input of training: link, connections, shards, cache, lanes and readers",
    measure="streaming",
    recipe="imagenet",
    fields={
        "model.image_size": "64",
        "model.classes": "10",
        "train.global_batch_size": "64",
        "data.test_split": "test",
        "data.shuffle_window": "32",
        "data.readers": "1",
        "storage.cache_bytes": "1GiB",
        **{f"probe.{name}": value for name, value in SETTINGS.items()},
    },
    budget=Budget(seconds=240, memory_mib=6000),
    arms=(Arm("near"), Arm("far", {"probe.latency_ms": "100"})),
    axes=(
        imposed("Mbit/s, falling", "mbit", ("1600", "800", "400", "200", "100"), ("near",)),
        imposed("latency in ms", "latency_ms", ("0", "20", "100", "200"), ("near",)),
        over("connections, falling", "storage.connections", ("16", "8", "4", "1")),
        imposed("shards", "shards", ("16", "64", "256", "1024"), note="The same images in more and smaller objects."),
        over(
            "cache, falling",
            "storage.cache_bytes",
            ("1GiB", "64MiB", "32MiB", "0"),
            ("near",),
            "The second epoch tells of it.",
        ),
        over("lanes", "data.lanes", ("1", "8", "16"), ("near",), "Records are read in so many sequences."),
        over("readers", "data.readers", ("1", "2", "4"), ("near",), "More than one share their cores with the bucket."),
    ),
)
