"""``capsnet probe``: where capsule networks stop scaling."""

from __future__ import annotations

import argparse
import dataclasses
import re
import textwrap
import time
from pathlib import Path
from typing import Any

from trainer.cli_probe_job import add_job
from trainer.cli_probe_network import add_network
from trainer.errors import EXIT_DONE, ConfigError, InterruptedRun, note
from trainer.parsing import EXIT_CODES, Parser, add, add_group
from trainer.probe import studies
from trainer.probe.study import Study
from trainer.stopping import StopRequest
from trainer.storage import Location, local_place, place

STUDIES = "see 'capsnet probe studies'"


def add_probe(commands: Any) -> None:
    actions = add_group(
        commands,
        "probe",
        "measure where capsule networks stop scaling, and which limit comes first",
        "examples:\n"
        "  capsnet probe studies                     # what there is\n"
        "  capsnet probe show cost                   # axes, thresholds, cells, hours\n"
        "  capsnet probe run                         # smoke: two minutes on two cores\n"
        "  capsnet probe run cost --output probes/cost\n"
        "  capsnet probe report probes/cost          # the page, probes/cost/report.html\n"
        "  capsnet probe cell cost dynamic/parents=100/seed0   # one cell of it again\n\n"
        "A study varies one axis at a time (parents, image size, ...) around a centre,\n"
        "for several arms: a routing, or a control without it. An arm at one value with\n"
        "one seed is a cell. Each runs in a process of its own within limits of time and\n"
        "memory, and leaves a record: after Ctrl-C or kill -9 the same command goes on\n"
        "with the cell that was under way. One that is killed twice with its parent is\n"
        "recorded as killed; --failed-again measures it after all.\n\n" + EXIT_CODES,
    )
    run = add(
        actions,
        "run",
        _run,
        "measure the cells of a study that have no record yet",
        "examples:\n"
        "  capsnet probe run cost --output probes/cost\n"
        "  # the first of two machines; the other has --shard 1/2\n"
        "  capsnet probe run cost --output gs://BUCKET/probes/cost --shard 0/2\n\n" + EXIT_CODES,
    )
    run.add_argument(
        "study", nargs="?", default=studies.DEFAULT, metavar="STUDY", help=f"{STUDIES} (default: %(default)s)"
    )
    run.add_argument(
        "--output", type=place, metavar="DIR", help="folder or gs://BUCKET/... (default: a new one under probes/)"
    )
    run.add_argument(
        "--shard",
        default="0/1",
        metavar="i/N",
        help="every Nth cell from i on, for N machines (default: %(default)s, all)",
    )
    run.add_argument(
        "--axis",
        action="append",
        metavar="NAME",
        help="only this axis; may be given again, or another time with the same --output (default: all)",
    )
    run.add_argument(
        "--noisy-again",
        action="store_true",
        help="measure once more the cells that met this machine while it was slower than mostly, by the reference "
        "that is timed beside each",
    )
    run.add_argument(
        "--failed-again",
        action="store_true",
        help="measure once more the cells that were killed twice, or ended in an error",
    )
    cell = add(
        actions,
        "cell",
        _cell,
        "measure one cell of a study again and print its numbers",
        "example:\n  capsnet probe cell smoke dynamic/parents=100/seed0\n\n" + EXIT_CODES,
    )
    _add_study(cell)
    cell.add_argument("key", metavar="CELL", help="'capsnet probe show STUDY --cells' and the page list them")
    cell.set_defaults(axis=None)
    for made in (run, cell):
        made.add_argument("--data", metavar="URI", help="shards, as --data.uri (default: those of the study)")
        made.add_argument(
            "--memory", type=int, metavar="MIB", help="MiB that a cell may take (default: that of the study)"
        )
        made.add_argument(
            "--seconds", type=float, metavar="S", help="seconds that a cell may take (default: those of the study)"
        )
    add(actions, "studies", _studies, "list the studies")
    show = add(actions, "show", _show, "say what a study will do", "example:\n  capsnet probe show smoke --cells")
    _add_study(show)
    show.add_argument("--cells", action="store_true", help="list the cells too, in their order")
    for name, call, help, example, count in (
        (
            "report",
            _report,
            "write the page of one study or several, report.html",
            "report probes/cost probes/learning",
            "+",
        ),
        ("collect", _collect, "write all records as cells.jsonl and cells.csv", "collect probes/cost --to cost", None),
    ):
        made = add(actions, name, call, help, f"example:\n  capsnet probe {example}")
        made.add_argument(
            "results", nargs=count, type=place, metavar="RESULTS", help="what --output of 'capsnet probe run' was"
        )
        made.add_argument(
            "--to", type=local_place, metavar="DIR", help="folder (default: the first RESULTS, where that is one)"
        )
    add_job(actions, run, _run)
    add_network(actions)


def _add_study(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help=STUDIES)


def _run(parsed: argparse.Namespace) -> int:
    from trainer.probe import run

    study, shard = _limited(studies.load(parsed.study), parsed), _shard(parsed.shard)
    output = parsed.output or Path("probes") / f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    print(f"study {study.name}: {study.about}\nrecords: {output}", flush=True)
    stop = StopRequest()
    try:
        run.run(
            study,
            output,
            shard,
            lambda line: print(line, flush=True),
            lambda: stop.asked,
            noted=stop.noted,
            noisy_again=parsed.noisy_again,
            failed_again=parsed.failed_again,
        )
    except InterruptedRun:
        raise
    except (Exception, KeyboardInterrupt):
        if stop.asked:  # whatever the interrupt became on its way through libraries
            raise run.stopped_at(output) from None
        raise
    print(f"\nthe page: capsnet probe report {output}")
    return EXIT_DONE


def _cell(parsed: argparse.Namespace) -> int:
    from trainer.probe import run

    study = _limited(studies.load(parsed.study), parsed)
    result = run.one(study, parsed.key)
    print(f"{result.cell}: {run.summary(result)}")
    for name, value in result.numbers.items():
        print(f"  {name:44s}{value:.6g}")
    return EXIT_DONE


def _limited(study: Study, parsed: argparse.Namespace) -> Study:
    """With the limits and data that were asked for, which make it another study, and no other axes than those."""
    for option in ("memory", "seconds"):
        value = getattr(parsed, option)
        if value is not None and not value > 0:
            raise ConfigError(f"--{option} {value:g}: give more than 0")
    budget = dataclasses.replace(
        study.budget,
        **({"memory_mib": parsed.memory} if parsed.memory is not None else {}),
        **({"seconds": parsed.seconds} if parsed.seconds is not None else {}),
    )
    names = [axis.name for axis in study.axes]
    for name in parsed.axis or []:
        if name not in names:
            raise ConfigError(f"study {study.name} has no axis {name}; there are {', '.join(names)}")
    axes = tuple(axis for axis in study.axes if not parsed.axis or axis.name in parsed.axis)
    fields = {**study.fields, **({studies.DATA: parsed.data} if parsed.data is not None else {})}
    return dataclasses.replace(study, budget=budget, axes=axes, fields=fields)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--shard {text}: give i/N with i from 0 to N - 1")
    return int(match[1]), int(match[2])


def _studies(_parsed: argparse.Namespace) -> int:
    width = max(map(len, studies.names())) + 2
    for name in studies.names():
        print(_filled(name, studies.load(name).about, width))
    return EXIT_DONE


def _show(parsed: argparse.Namespace) -> int:
    from trainer.probe.report import words
    from trainer.probe.run import bound
    from trainer.probe.study import cells

    study = studies.load(parsed.study)
    every = cells(study)
    changed = ", ".join(f"{key}={value}" for key, value in study.fields.items()) or "nothing changed"
    print(_filled("study", f"{study.name}: {study.about}"))
    print(_filled("centre", f"recipe {study.recipe} with {changed}"))
    for axis in study.axes:
        of = f", of {words.SEPARATOR.join(axis.arms)}" if axis.arms else ""
        print(_filled("axis", f"{axis.name} ({', '.join(axis.fields)}): {'; '.join(axis.values)}{of}"))
    for arm in study.arms:
        print(_filled("arm", f"{arm.name}{', a control' if arm.control else ''}"))
    print(_filled("limits", words.rules(study)))
    print(_filled("cells", f"{len(every)}, at most {bound(study, len(every))} on one machine"))
    if parsed.cells:
        print(*(each.key for each in every), sep="\n")
    return EXIT_DONE


def _filled(key: str, text: str, width: int = 8) -> str:
    """Within 80 columns, the text beside its key."""
    return textwrap.fill(text, 80, initial_indent=f"{key:{width}}", subsequent_indent=" " * width)


def _collect(parsed: argparse.Namespace) -> int:
    from trainer.probe import collect

    for path in collect.write(parsed.results, _folder(parsed, parsed.results), note):
        print(path)
    return EXIT_DONE


def _report(parsed: argparse.Namespace) -> int:
    from trainer.probe.report import page

    print(page.write(parsed.results, _folder(parsed, parsed.results[0]), note))
    return EXIT_DONE


def _folder(parsed: argparse.Namespace, results: Location) -> Path:
    if parsed.to is not None:
        return Path(parsed.to)
    if not isinstance(results, Path):
        raise ConfigError(f"{results}: is a bucket; name a folder with --to")
    return results
