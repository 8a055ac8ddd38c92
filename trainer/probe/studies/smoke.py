"""Two minutes on two cores: what a step costs over parents and children, routed and not."""

from trainer.probe.study import Arm, Budget, Study, over

STUDY = Study(
    name="smoke",
    about="seconds and memory of a step of the quick recipe, on two cores",
    measure="cost",
    recipe="quick",
    fields={"train.global_batch_size": "32", "train.threads": "2"},
    budget=Budget(seconds=60, memory_mib=3000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
    ),
    axes=(
        over("parents", "model.classes", ("10", "30", "100")),
        over("children", "model.primary.types", ("16", "64")),
        over("iterations", "model.routing.iterations", ("1", "3", "6")),
    ),
)
