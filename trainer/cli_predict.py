"""The command ``capsnet predict``."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.parsing import EXIT_CODES, add, add_checkpoint, add_run
from trainer.storage import local_place

EPILOG = """\
examples:
  capsnet predict runs/quick-20260101-120000 shoe.png
  # a folder and a zip; a column for each class
  capsnet predict runs/... photos more.zip --output seen.csv --scores
  # what the decoder makes of each image
  capsnet predict runs/... 'photos/**/*.jpg' --reconstructions pictures > a.csv

IMAGES are files, folders (with all below them), zips or quoted patterns: JPEG
and PNG of any size and mode, and what else Pillow reads. They become what the
run's tests would see: odd modes are made RGB as by 'capsnet data prepare', Exif
orientation is ignored. Where the run takes images of one size, the central
square of others is resized to it.

The CSV goes to stdout, or to FILE.part that becomes FILE:
  file,label,score,second,second_score,error
score is the class score itself: length (or activation) of the class capsule.
Networks of crowded scenes see two things: label and second. An image that can't
be used is a line on stderr, a row with an error, and exit code 1 at the end.
After Ctrl-C the rows of all images that were done are there.

RUN may also be a folder of 'capsnet export', without --reconstructions.

"""


def add_predict(commands: Any) -> None:
    parser = add(
        commands, "predict", _predict, "write what a trained network sees in images, as CSV", EPILOG + EXIT_CODES
    )
    option = parser.add_argument
    add_run(parser)
    option("images", nargs="+", metavar="IMAGES", help="files, folders, zips, patterns")
    add_checkpoint(parser)
    option("--output", type=local_place, metavar="FILE", help="write the CSV there (default: stdout)")
    option(
        "--top",
        type=int,
        default=2,
        metavar="N",
        help="classes of each image, the longest first (default: %(default)s)",
    )
    option("--scores", action="store_true", help="a column with the score of each class")
    option(
        "--reconstructions",
        type=local_place,
        metavar="DIR",
        help="also write each image beside what the decoder makes of its longest class capsule there, as PNG",
    )


def _predict(parsed: argparse.Namespace) -> int:
    from trainer.output import copies
    from trainer.predict.run import Request, predict

    with copies.local(parsed.run, parsed.checkpoint) as run:
        return predict(
            Request(
                run=run,
                images=tuple(parsed.images),
                checkpoint=parsed.checkpoint,
                output=parsed.output,
                scores=parsed.scores,
                top=parsed.top,
                reconstructions=parsed.reconstructions,
            )
        )
