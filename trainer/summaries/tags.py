"""Where each value stands in TensorBoard, and the explanation beside it."""

from __future__ import annotations

from typing import NamedTuple


class Tag(NamedTuple):
    """A name, and what TensorBoard says beside it."""

    name: str
    description: str


CONFIG = Tag("run/config", "The configuration of the run.")

TRAIN = {
    "loss": Tag("loss/total", "Mean training loss of the steps since the point before: the sum of its terms."),
    "accuracy": Tag(
        "accuracy/train",
        "Share of the training records since the point before whose longest class capsule is the right one (of "
        "overlapping pairs: whose two longest are the right two), as augmented, and seen while the weights still "
        "changed.",
    ),
    "epoch": Tag("train/epoch", "Passes over the training data so far."),
    "learning_rate": Tag("train/learning_rate", "Learning rate of this step."),
    "gradient_norm": Tag("train/gradient_norm", "Norm of this step's gradient of all weights, before clipping."),
    "images_per_second": Tag("speed/images_per_second", "Training images per second, over all ranks."),
    "step_seconds": Tag("speed/step_seconds", "Mean seconds of a step, the wait for its batch included."),
    "input_wait": Tag(
        "speed/input_wait",
        "Share of the time that rank 0 took to get its batches, 0 to 1, the handing over of those that were ready "
        "included. Well above 0.05: input is too slow.",
    ),
    "wait_reading": Tag("speed/input_wait_reading", "Its part that was waited for disk or network."),
    "wait_decoding": Tag("speed/input_wait_decoding", "Its part that was waited for decoding."),
    "wait_augmenting": Tag("speed/input_wait_augmenting", "Its part that was waited for augmentation."),
    "peak_memory_mib": Tag(
        "memory/peak_mib",
        "Most memory that rank 0's process had resident so far, in MiB: TensorFlow itself and evaluation included.",
    ),
    "peak_gpu_memory_mib": Tag("memory/peak_gpu_mib", "Most memory that rank 0 held on its GPU so far, in MiB."),
}
TRAIN_TERM = Tag("loss/{}", "Mean of this weighted term of the training loss.")
TEST = {
    "loss": Tag("loss/total_test", "Mean loss over all test records: the sum of its terms."),
    "accuracy": Tag(
        "accuracy/test",
        "Share of all test records whose longest class capsule is the right one (of overlapping pairs: whose two "
        "longest are the right two).",
    ),
    "top5": Tag(
        "accuracy/test_top5", "Share of all test records whose class is among the five longest class capsules."
    ),
}
TEST_TERM = Tag("loss/{}_test", "Mean of this weighted term over all test records.")
GRADIENT = Tag("gradients/{layer}", "Norm of this step's gradient of the weights of {layer}, before clipping.")
WEIGHT = Tag("weights/{layer}", "Norm of the weights of {layer}.")

OBSERVED = "Of the first {records} test records. "
COUPLINGS = "Of the first {coupling_records} test records. "
ENTROPY = Tag(
    "routing/{layer}/entropy_iteration_{iteration}",
    OBSERVED + "Mean entropy of a child's couplings over its parents, divided by its largest value, at routing "
    "iteration {iteration} of {iterations}. 1: uniform, as iteration 1 of several always is; 0: each child has one "
    "parent. Where it stays at 1 in the last iteration, routing does nothing. divergence shows what is left to 1.",
)
DIVERGENCE = Tag(
    "routing/{layer}/divergence",
    OBSERVED + "Mean KL divergence of a child's couplings in the last routing iteration from uniform ones, divided by "
    "its largest value, ln of their number: 1 - entropy, on an axis where small differences are seen. 0: uniform; 1: "
    "each child has one parent.",
)
EFFECTIVE_PARENTS = Tag(
    "routing/{layer}/effective_parents_iteration_{iteration}",
    OBSERVED + "How many parents a child is spread over, mean of exp(entropy), at routing iteration {iteration} of "
    "{iterations}; of {parents} parents.",
)
UNASSIGNED = Tag(
    "routing/{layer}/unassigned_iteration_{iteration}",
    OBSERVED + "Mean share of a child that goes to none of the parents, at routing iteration {iteration} of "
    "{iterations}.",
)
WINNER_CHANGED = Tag(
    "routing/{layer}/winner_changed",
    OBSERVED + "How often the most active parent is another than with uniform couplings, which are also those of the "
    "first iteration where there are several: 0 to 1. 0: the same parents win without routing. Self-routing has none: "
    "under uniform couplings all its parents are equally active.",
)
FAVOURITE_CHANGED = Tag(
    "routing/{layer}/favourite_changed",
    COUPLINGS + "Share of the children whose largest coupling goes to another parent in the last iteration than in "
    "the second, the first that has a preference.",
)
AGREEMENT = Tag(
    "routing/{layer}/agreement",
    COUPLINGS + "Mean cosine of a child's vote for the most active parent and that parent's pose, weighted by its "
    "coupling: -1 to 1. Above agreement_of_all: routing gives weight to those that agree.",
)
AGREEMENT_OF_ALL = Tag("routing/{layer}/agreement_of_all", COUPLINGS + "The same, all children with the same weight.")
CHILD_GRADIENT = Tag(
    "routing/{layer}/gradient_children",
    OBSERVED + "Mean norm of the gradient of a record's class loss with respect to the capsules that {layer} routes "
    "from: what routing lets through.",
)
PARENT_GRADIENT = Tag(
    "routing/{layer}/gradient_parents",
    OBSERVED + "The same with respect to the capsules that {layer} routes to: what arrives at the routing.",
)
CHILD_ACTIVATIONS = Tag(
    "capsules/{layer}/child_activations",
    OBSERVED + "Activations of the capsules that {layer} routes from: lengths, 0 to 1, unless routing has its own.",
)
PARENT_ACTIVATIONS = Tag(
    "capsules/{layer}/parent_activations",
    OBSERVED + "Activations of the {parents} capsules that {layer} routes to: lengths, 0 to 1, unless routing has its "
    "own. Lengths all near 0: they are dying.",
)
DEAD = Tag(
    "capsules/{layer}/dead_{side}",
    OBSERVED + "Share of the capsules that {layer} routes {preposition} whose activation is below {dead:g} on all of "
    "them.",
)
SILENT = Tag(
    "capsules/{layer}/silent_{side}",
    OBSERVED + "Share of all activations of the capsules that {layer} routes {preposition} that are below {dead:g}; "
    "where activations are lengths: of preactivations near 0.",
)
ALWAYS_ON = Tag(
    "capsules/{layer}/always_on_{side}",
    OBSERVED + "Share of the capsules that {layer} routes {preposition} whose activation is above {on:g} on all of "
    "them: they say nothing.",
)
ALARM = Tag(
    "routing/alarm",
    "How many of {signs} signs of dying are there: uniform couplings in the last iteration, class capsules of length "
    "near 0{margin}. At the start they are normal; where all stay, the network is dead. 0 says that it is not, and not "
    "that routing does anything: see divergence and winner_changed.",
)
RECONSTRUCTIONS = Tag(
    "pictures/reconstructions",
    "Pairs: on the left what the network saw, on the right what the decoder made of the capsule of the true class; "
    "where two things overlap, of those of both true classes.",
)
DIMENSIONS = Tag(
    "pictures/dimensions",
    "Reconstructions of the first image while one number of its longest class capsule is varied: a row for each "
    "number, from {least:+.2f} to {most:+.2f} of what it is, in the middle as it is.",
)
COUPLING_MAPS = Tag(
    "pictures/couplings",
    "Where the longest class capsule of an image comes from: beside the image, for each routing iteration, the "
    "couplings to it times the children's activations, summed over types; bright is much, each map by itself.",
)
CONFUSION = Tag(
    "pictures/confusion",
    "Of all test records. Rows: the right class; columns: what was found; shares of a row.",
)
