"""What routing costs on one GPU: the sizes at which two cores have long given up."""

from trainer.probe.studies.axes import depth
from trainer.probe.study import Arm, Budget, Study, Thresholds, over

STUDY = Study(
    name="cost_gpu",
    about="seconds and memory of a network's passes on one GPU over parents, children, batch and depth",
    measure="cost",
    recipe="quick",
    fields={"train.global_batch_size": "128", "model.head.initial_scale": "parents"},
    budget=Budget(seconds=180, memory_mib=60_000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("dynamic, stored votes", {"model.routing.algorithm": "dynamic", "model.routing.implementation": "stored"}),
        Arm("em", {"model.routing.algorithm": "em"}),
        Arm("dynamic, shared transforms", {"model.routing.algorithm": "dynamic", "model.head.transform": "shared"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
        Arm("uniform", {"model.routing.algorithm": "uniform"}, control=True),
    ),
    axes=(
        over("parents", "model.classes", ("10", "100", "1000", "3000")),
        over("children", "model.primary.types", ("16", "64", "256")),
        over("batch", "train.global_batch_size", ("128", "512", "2048")),
        depth("depth", (1, 4, 16)),
    ),
    thresholds=Thresholds(step_ratio=5.0),
    hardware="one GPU of 80 GB",
)
