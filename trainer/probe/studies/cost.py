"""What routing costs: seconds and memory over everything that a capsule layer is made of, for each algorithm."""

from trainer.probe.studies.axes import depth
from trainer.probe.study import Arm, Budget, Study, Thresholds, over

ITERATE = ("dynamic", "dynamic, stored votes", "em", "inverted")

STUDY = Study(
    name="cost",
    about="seconds and memory of a network's passes over children, parents, poses, iterations, image, batch and depth",
    measure="cost",
    recipe="quick",
    fields={"train.global_batch_size": "32", "train.threads": "2", "model.head.initial_scale": "parents"},
    budget=Budget(seconds=180, memory_mib=6000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("dynamic, stored votes", {"model.routing.algorithm": "dynamic", "model.routing.implementation": "stored"}),
        Arm("em", {"model.routing.algorithm": "em"}),
        Arm("inverted", {"model.routing.algorithm": "inverted"}),
        Arm("self_routing", {"model.routing.algorithm": "self_routing"}),
        Arm("self_attention", {"model.routing.algorithm": "self_attention"}),
        Arm("dynamic, shared transforms", {"model.routing.algorithm": "dynamic", "model.head.transform": "shared"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
        Arm("uniform", {"model.routing.algorithm": "uniform"}, control=True),
    ),
    axes=(
        over("parents", "model.classes", ("10", "30", "100", "300", "1000")),
        over("children", "model.primary.types", ("4", "16", "64", "256")),
        over("pose size", "model.head.pose", ("4", "16", "64")),
        over("iterations", "model.routing.iterations", ("1", "3", "6", "12"), arms=ITERATE),
        over("image size", "model.image_size", ("28", "56", "112", "224")),
        over("batch", "train.global_batch_size", ("8", "32", "128", "512")),
        depth("depth", (1, 2, 4, 8, 16)),
    ),
    thresholds=Thresholds(step_ratio=5.0),
)
