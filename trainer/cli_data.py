"""The command ``capsnet data``: prepare, inspect and verify data sets."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.config import StorageConfig
from trainer.data.prepare.request import KINDS
from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED, ConfigError, DataError, InterruptedRun
from trainer.parsing import EXIT_CODES, add, add_group
from trainer.progress import Tally
from trainer.storage import is_cloud, local_place, place

SHOWN = 10
DEADLINE = "--storage.deadline_seconds"

IMAGENET = """\
ImageNet, from nothing to training:
  1. Download these from image-net.org (free account, 'ILSVRC2012' under
     Download) into one folder, say ~/ilsvrc, and leave them packed:
       ILSVRC2012_img_train.tar       147,897,477,120 bytes
       ILSVRC2012_img_val.tar           6,744,924,160 bytes
       ILSVRC2012_devkit_t12.tar.gz   about 2.5 MB: classes of the val images
     Folders train/<synset>/*.JPEG and val/<synset>/*.JPEG will do instead, and
     so will a flat val/ beside the devkit.
  2. capsnet data prepare ~/ilsvrc /data/imagenet     or gs://BUCKET/imagenet
     Makes 1024 train and 128 val shards and index.json. Nothing is unpacked:
     the disk needs 155 GB for the shards, none where they go to a bucket. All
     cores decode every image once: two shared cores were measured at 1,300 to
     1,800 images/s of that size (1.3 million are some 15 minutes then), where
     disk and network keep up. Interrupted, even by kill -9? The same command
     goes on: only shards that are missing or damaged are made.
  3. capsnet data verify /data/imagenet     every checksum, every image decoded
     capsnet data inspect /data/imagenet    numbers and a contact sheet
  4. capsnet train imagenet --data.uri /data/imagenet
  Classes are synset ids (n01440764, ...) in sorted order, labels 0 to 999 in
  that order, for both splits: the other numbers in the devkit are mapped
  through its meta.mat.
"""

PREPARE = (
    """\
examples:
  capsnet data prepare cifar-10-binary.tar.gz /data/cifar10
  capsnet data prepare photos.zip /data/photos --held-out 0.2
  capsnet data prepare ~/ilsvrc gs://BUCKET/imagenet
  capsnet data prepare gs://BUCKET/tfds/cifar10/3.0.2 /data/c   # an index alone

"""
    + IMAGENET
    + """
other sources (the kind is recognised; --kind says it):
  cifar10     cifar-10-binary.tar.gz as downloaded from cs.toronto.edu/~kriz
              (size and md5 are checked), or unpacked; lossless PNG records
  cifar100    cifar-100-binary.tar.gz, likewise; the 100 fine classes
  folder      <split>/<class>/<image> or <class>/<image>, or a zip of one; where
              there is only one split a share of each class is held out as test;
              Tiny ImageNet (tiny-imagenet-200.zip) as it is
  tfrecord    TFRecords that others wrote (TFDS, Inception/TPU): only an index
              is made, they are read as they are

what is stored:
  JPEG and gray or RGB PNG bytes as they are. Other images (CMYK, palette,
  alpha, 16 bits, a PNG named .JPEG, ...) become RGB, as JPEG of quality 95 or
  as PNG if small: counted and listed. Exif orientation is ignored, here and in
  training. Images that cannot be decoded are skipped and listed; if they are
  more than --bad-share, the command fails. Mean and deviation are taken over
  all images up to 128x128 pixels and one in 16 of the others. The same source
  and seed give the same bytes at any number of workers.

made on the fly from any prepared set, nothing is stored:
  crowded scenes     capsnet train ... --data.overlap.enabled
  affine test split  capsnet evaluate RUN --affine

"""
    + EXIT_CODES
)


def add_data(commands: Any) -> None:
    """Adds the command with its subcommands."""
    subcommands = add_group(
        commands,
        "data",
        "turn images into shards, in a folder or a bucket, and check them",
        IMAGENET + "\n'capsnet data prepare --help' tells of other sources and all options.",
    )
    _add_prepare(subcommands)
    inspect = add(
        subcommands,
        "inspect",
        _inspect,
        "show numbers, class balance and a contact sheet of a data set",
        "example:\n  capsnet data inspect /data/cifar10 --sheet cifar10.png",
    )
    _add_uri(inspect)
    inspect.add_argument(
        "--sheet", type=local_place, metavar="PNG", help="contact sheet (default: the data set's NAME-contact.png)"
    )
    verify = add(
        subcommands,
        "verify",
        _verify,
        "check every checksum and decode every record of a data set",
        "example:\n  capsnet data verify gs://BUCKET/imagenet --workers 8\n\n"
        "exit codes:\n   0  all is well\n   1  something is wrong: each is a line\n   2  there is no data set",
    )
    _add_uri(verify)
    _add_workers(verify, "all cores")


def _add_uri(parser: argparse.ArgumentParser) -> None:
    _add_deadline(parser)
    parser.add_argument("uri", metavar="URI", help="folder, gs://BUCKET/PREFIX or embedded, as --data.uri")


def _add_prepare(commands: Any) -> None:
    parser = add(commands, "prepare", _prepare, "write a data set as shards with an index", PREPARE)
    option = parser.add_argument
    option("source", type=place, metavar="SOURCE", help="archive, zip or folder; of TFRecords also gs://BUCKET/PREFIX")
    option("destination", metavar="DESTINATION", help="folder or gs://BUCKET/PREFIX, empty or holding a part of this")
    kinds = ("auto", *KINDS)
    option("--kind", choices=kinds, default="auto", metavar="KIND", help=f"{', '.join(kinds)} (default: %(default)s)")
    option("--name", default="", metavar="TEXT", help="of the data set (default: that of the source)")
    option("--licence", default="", metavar="TEXT", help="of the images (default: what is known of the source)")
    option(
        "--seed", type=int, default=0, metavar="N", help="of the shuffle and the held-out share (default: %(default)s)"
    )
    option("--shards", default="", metavar="SPLIT=N,...", help="as train=16,test=4 (default: about 128 MiB each)")
    option(
        "--held-out",
        type=float,
        default=0.1,
        metavar="X",
        help="share held out as test where there is one split (default: %(default)s)",
    )
    option(
        "--bad-share",
        type=float,
        default=0.001,
        metavar="X",
        help="share of images that may be undecodable (default: %(default)s)",
    )
    option(
        "--names",
        type=local_place,
        metavar="FILE",
        help="lines 'CLASS human name', as LOC_synset_mapping.txt has them; for TFRecords a name a line, by label",
    )
    _add_deadline(parser)
    _add_workers(parser, "all cores, as far as memory goes: each holds a shard twice")


def _add_deadline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        DEADLINE,
        dest="deadline",
        type=_seconds,
        default=storage.standing().deadline_seconds,
        metavar="X",
        help="give up on a bucket after so many seconds without progress (default: %(default)g)",
    )


def _add_workers(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--workers", type=_positive, metavar="N", help=f"parallel jobs (default: {default})")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text}: give seconds, more than 0")


def _shards(text: str) -> dict[str, int]:
    shards: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        split, _, count = part.partition("=")
        if not split or not count.isdigit() or int(count) < 1:
            raise ConfigError(f"--shards {part}: give SPLIT=N, as train=16,test=4")
        shards[split] = int(count)
    return shards


def _keep_to(deadline: float) -> None:
    """How long a bucket is waited for; and that it is, is told, and not to look like working."""
    storage.stand_by(StorageConfig(deadline_seconds=deadline))
    log = logging.getLogger("capsnet")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())


def _prepare(parsed: argparse.Namespace) -> int:
    from trainer.data.index import folder_of
    from trainer.data.prepare import run
    from trainer.data.prepare.request import Request
    from trainer.data.prepare.seen import ODDITIES

    _keep_to(parsed.deadline)
    if parsed.seed < 0:
        raise ConfigError(f"--seed {parsed.seed}: give 0 or more")
    command = _command(parsed)
    kind = parsed.kind
    if is_cloud(parsed.source):
        if kind not in ("auto", "tfrecord"):
            raise ConfigError(f"{parsed.source}: a bucket is read for --kind tfrecord only; copy it here first")
        kind = "tfrecord"
    elif kind == "auto" and parsed.source.exists():
        kind = run.kind_of(parsed.source)
    if kind == "tfrecord":
        return _foreign(parsed, command)
    request = Request(
        source=parsed.source,
        destination=folder_of(parsed.destination),
        kind=kind,
        name=parsed.name,
        licence=parsed.licence,
        command=command,
        seed=parsed.seed,
        shards=_shards(parsed.shards),
        held_out=parsed.held_out,
        bad_share=parsed.bad_share,
        workers=parsed.workers,
        names=parsed.names,
    )
    report, listing = Tally("images"), Tally("entries listed", patient=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = run.prepare(request, report, listing)
    except KeyboardInterrupt:
        raise InterruptedRun(f"{parsed.destination}: stopped; the same command goes on from there") from None
    finally:
        listing.end()
        report.end()
    if not done.made:
        print(f"{parsed.destination}: complete already, all {done.kept} shards have the right checksums")
    elif done.kept:
        print(f"made {done.made} shards, kept {done.kept} that were whole")
    for what, some in (("skipped, cannot be decoded", done.skipped), ("converted", done.converted)):
        if some:
            print(f"{what}: {len(some)}")
            for odd in some[:SHOWN]:
                print(f"  {odd.name}: {odd.reason}")
            if len(some) > SHOWN:
                print(f"  ... all are listed in {parsed.destination.rstrip('/')}/{ODDITIES}")
    _summary(done.index, parsed.destination)
    return EXIT_DONE


def _foreign(parsed: argparse.Namespace, command: str) -> int:
    from trainer.data import foreign

    report = Tally("bytes")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        index = foreign.write_index(
            str(parsed.source),
            parsed.destination,
            name=parsed.name or None,
            licence=parsed.licence,
            command=command,
            class_names=_class_names(parsed.names),
            report=report,
            workers=parsed.workers,
        )
    except KeyboardInterrupt:
        raise InterruptedRun(f"{parsed.destination}: stopped; the same command goes on from there") from None
    except OSError as error:
        place = error.filename or parsed.destination
        raise DataError(f"{place}: {error.strerror or error}; mend that, the same command goes on from there") from None
    finally:
        report.end()
    _summary(index, parsed.destination)
    return EXIT_DONE


def _class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give one class name a line") from None


def _command(parsed: argparse.Namespace) -> str:
    """As it was typed, with names of places reduced to their last part: an index may be published."""
    source = str(parsed.source)
    words = sys.argv[1:] if sys.argv[1:2] == ["data"] else ["data", "prepare", source, parsed.destination]
    names = {typed: Path(typed).name for typed in (source, parsed.destination)}
    return "capsnet " + shlex.join(names.get(word, word) for word in words)


def _summary(index: Any, destination: str) -> None:
    from trainer.data import fitting

    for name, split in index.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        print(f"{name}: {split.records:,} records in {len(split.shards)} shards, {size:,} bytes")
    for note in index.notes:
        print(f"note: {note}")
    place = shlex.quote(destination)
    options = " ".join(f"--{name} {shlex.quote(value)}" for name, value in fitting.overrides(index).items())
    print(
        f"next:\n  capsnet data verify {place}\n  capsnet data inspect {place}\n"
        f"  capsnet train RECIPE --data.uri {place} {options}"
    )


def _inspect(parsed: argparse.Namespace) -> int:
    from trainer.data import inspect

    _keep_to(parsed.deadline)
    inspect.run(parsed.uri, parsed.sheet, print)
    return EXIT_DONE


def _verify(parsed: argparse.Namespace) -> int:
    from trainer import distributed
    from trainer.data import verify

    _keep_to(parsed.deadline)
    return EXIT_UNEXPECTED if verify.run(parsed.uri, parsed.workers or distributed.cores(), print) else EXIT_DONE
