"""The command ``capsnet evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

from trainer import config as configuration
from trainer.parsing import EXIT_CODES, add, add_checkpoint, add_run
from trainer.storage import local_place

EPILOG = """\
examples:
  capsnet evaluate runs/quick-20260101-120000
  # affine maps and pairs too, as JSON and with plots
  capsnet evaluate runs/... --all --json score.json --plots plots
  # on several processes
  capsnet launch --ranks 2 evaluate runs/...

what is said:
  accuracy     with its 95 % interval (Wilson 1927): how far other test records
               would fall, with the same network. The best checkpoint was chosen
               by the run's test records, and does a little better on them than
               on others; --checkpoint last was not
  top 5        where there are more than five classes
  calibration  expected calibration error over 15 equal bins of confidence, and
               that depends on the loss: with cross_entropy it is the largest of
               softmax(scale x score), with nll the largest score's share of
               their sum, with margin and spread the length (or activation) of
               the longest class capsule as it is, which is no probability
  classes      recall and precision; of more than 20 the worst and the best 10
  confusions   what is taken for what most often; the whole matrix for up to 10
               classes here, for any number in --json and as a picture
Everything goes into TensorBoard too, as the run RUN/evaluation/SET; from a
bucket 'capsnet sync' brings it with the run.

--overlap tests on pairs a network that was trained on single things. Its canvas
has the size of one image, so the two lie on each other without a shift. Scenes
with a shift (data.overlap) are larger than the images by 2 data.overlap.shift:
for these train with --data.overlap.enabled; such a run is always tested so.

"""


def add_evaluate(commands: Any) -> None:
    parser = add(commands, "evaluate", _evaluate, "score a checkpoint of a run on its test split", EPILOG + EXIT_CODES)
    option = parser.add_argument
    add_run(parser)
    add_checkpoint(parser)
    option("--data", metavar="URI", help="shards of the same classes and image size (default: the run's)")
    option("--split", metavar="SPLIT", help="of the data set (default: the run's test split)")
    bounds = configuration.STANDARD_AFFINE
    option(
        "--affine",
        action="append_const",
        dest="tests",
        const="affine",
        help=f"each image rotated by up to {bounds.rotation:g} degrees, sheared by {bounds.shear:g}, scaled by "
        f"{1 - bounds.scale:g} to {1 + bounds.scale:g} along each axis, shifted by {bounds.shift:g} pixels",
    )
    option(
        "--overlap",
        action="append_const",
        dest="tests",
        const="overlap",
        help="each image under one of another class: right where the two most active classes are both right",
    )
    option("--all", action="store_true", help="the test set as it is, affine, and overlap")
    option("--json", type=local_place, metavar="FILE", help="also write all of it there, as JSON")
    option("--plots", type=local_place, metavar="DIR", help="also draw calibration and confusion there, as PNG")


def _evaluate(parsed: argparse.Namespace) -> int:
    from trainer import rank
    from trainer.distributed import World
    from trainer.launch.lifeline import Lifeline
    from trainer.output import copies
    from trainer.scoring.request import Request

    def score(lifeline: Lifeline, world: World) -> int:
        with copies.local(parsed.run, parsed.checkpoint) as run:
            request = Request(
                run=run,
                place=parsed.run,
                checkpoint=parsed.checkpoint,
                data=parsed.data,
                split=parsed.split,
                tests=[] if parsed.all else parsed.tests or ["test"],
                json_file=parsed.json,
                plot_folder=parsed.plots,
            )
            return rank.evaluate(request, lifeline, world)

    return rank.guarded(score)
