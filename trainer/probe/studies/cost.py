"""What routing costs: seconds and memory over everything that a capsule layer is made of, for each algorithm."""

from trainer.probe.study import Arm, Axis, Budget, Study, Thresholds

STUDY = Study(
    name="cost",
    about="seconds and memory of a network's passes over children, parents, poses, iterations, image and batch",
    measure="cost",
    recipe="quick",
    fields={"train.global_batch_size": "32", "train.threads": "2", "model.head.initial_scale": "parents"},
    budget=Budget(seconds=180, memory_mib=6000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("dynamic, stored votes", {"model.routing.algorithm": "dynamic", "model.routing.implementation": "stored"}),
        Arm("inverted", {"model.routing.algorithm": "inverted"}),
        Arm("self_attention", {"model.routing.algorithm": "self_attention"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
        Arm("uniform", {"model.routing.algorithm": "uniform"}, control=True),
    ),
    axes=(
        Axis("parents", "model.classes", ("10", "30", "100", "300", "1000")),
        Axis("children", "model.primary.types", ("4", "8", "16", "32", "64", "128")),
        Axis("pose size", "model.head.pose", ("4", "8", "16", "32", "64")),
        Axis("iterations", "model.routing.iterations", ("1", "2", "3", "5", "8")),
        Axis("image size", "model.image_size", ("28", "40", "56", "80", "112")),
        Axis("batch", "train.global_batch_size", ("8", "32", "128", "512")),
    ),
    thresholds=Thresholds(step_ratio=5.0),
)
