"""What the input carries: images/s from a bucket of imposed bandwidth and latency, against the same shards on disk."""

from trainer.probe.study import Arm, Budget, Study, over

STUDY = Study(
    name="data",
    about="images/s of the input from a simulated bucket, over shards, lanes, readers, connections, cache and link",
    measure="streaming",
    recipe="quick",
    fields={
        "model.image_size": "128",
        "model.channels": "3",
        "model.classes": "8",
        "train.global_batch_size": "64",
        "data.augment.shift": "0",
        "data.augment.flip": "false",
        "data.lanes": "8",
        "data.readers": "2",
        "storage.connections": "8",
        "storage.cache_bytes": "1GiB",
        "probe.shards": "16",
        "probe.mbit": "400",
        "probe.latency_ms": "20",
    },
    budget=Budget(seconds=180, memory_mib=4000),
    arms=(Arm("streaming"),),
    axes=(  # each from plenty to little
        over("bandwidth, Mbit/s", "probe.mbit", ("1600", "400", "100", "25")),
        over("latency, ms", "probe.latency_ms", ("1", "20", "100", "400")),
        over("connections", "storage.connections", ("16", "8", "2", "1")),
        over("cache", "storage.cache_bytes", ("1GiB", "8MiB", "2MiB", "0")),
        over("readers", "data.readers", ("4", "2", "1")),
        over("lanes", "data.lanes", ("16", "8", "2", "1")),
        over("shards", "probe.shards", ("64", "16")),
    ),
)
