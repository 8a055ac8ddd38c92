"""What another rank brings: images/s, and where the time of a step goes, with the work of one rank or of all fixed.

Two ranks are what two cores carry. On a cluster more values are one edit away: of this file, or of a copy beside it.
"""

from trainer.probe.study import Arm, Axis, Budget, Study

RANKS = (1, 2)
BATCH = 64

STUDY = Study(
    name="ranks",
    about="images/s, allreduce and input wait over the number of ranks, a core each",
    measure="ranks",
    recipe="quick",
    fields={
        "train.global_batch_size": str(BATCH),
        "train.threads": "1",
        "train.epochs": "0.5",
        "evaluate.every_epochs": "0",
        "log.observe_every_steps": "0",
        "model.head.initial_scale": "parents",
        "probe.ranks": "1",
    },
    budget=Budget(seconds=300, memory_mib=8000),
    arms=(
        Arm("dynamic", {"model.routing.algorithm": "dynamic"}),
        Arm("dynamic, 1000 parents", {"data.rotations": "100", "model.classes": "1000"}),
        Arm("convolutions", {"model.head.kind": "conv_parameters"}, control=True),
    ),
    axes=(
        Axis("ranks, strong", {str(n): {"probe.ranks": str(n)} for n in RANKS}, note="One batch, shared by the ranks."),
        Axis(
            "ranks, weak",
            {str(n): {"probe.ranks": str(n), "train.global_batch_size": str(n * BATCH)} for n in RANKS},
            note="A batch of the same size for each rank.",
        ),
    ),
)
