"""Two epochs of the embedded images, with routing and without it: what is learned, and how routing fares meanwhile."""

from trainer.probe.study import Arm, Budget, Study, over

STUDY = Study(
    name="learning",
    about="test accuracy and the health of routing after two epochs of the embedded images, three seeds",
    measure="learning",
    recipe="quick",
    fields={
        "train.epochs": "2",
        "log.every_steps": "20",
        "log.observe_every_steps": "20",
        "evaluate.every_epochs": "2",
    },
    budget=Budget(seconds=300, memory_mib=4000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
        Arm("uniform", {"model.routing.algorithm": "uniform"}, control=True),
        Arm("first iteration", {"model.routing.algorithm": "dynamic", "model.routing.iterations": "1"}, control=True),
    ),
    axes=(
        over("children", "model.primary.types", ("2", "4", "8", "16", "32", "64")),
        over("child poses", "model.primary.pose", ("2", "4", "8", "16", "32")),
        over("parent poses", "model.head.pose", ("4", "8", "16", "32", "64")),
    ),
    seeds=(0, 1, 2),
)
