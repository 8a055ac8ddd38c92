"""``make bench``: what training costs, as ratios within one run, since machines are shared and noisy.

Each cell is the real program (``capsnet launch train``) in processes of its own. Repeats are interleaved, so that a
slow minute of the machine falls on all; the median is shown. Rates are taken from wall time between the first and the
last record of a run, with all that happens in between, and leave out start-up and compilation.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import configs
from trainer.data.shards import Record, Source, write_dataset
from trainer.launch.wire import ENV_HOROVOD
from trainer.progress import clock


@dataclass(frozen=True)
class Cell:
    """One thing that is measured: ``steps`` of a recipe."""

    name: str
    recipe: str
    steps: int
    ranks: int = 1
    horovod: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    warm_up: int = 3
    """Steps that are left out, with what is compiled in them."""


QUIET = {"log.observe_every_steps": "0"}
ONE_THREAD = {"train.threads": "1", **QUIET}


def cells(data: dict[str, str]) -> list[Cell]:
    """``data``: a folder of random images for each recipe that the embedded set does not fit."""
    by_recipe = {"quick": 60, "efficient_capsnet": 60, "sabour2017": 8, "sabour2017_cifar10": 4, "imagenet": 4}
    smaller = {
        "imagenet": {"train.global_batch_size": "16", "data.test_split": "test"},
        "sabour2017_cifar10": {"train.global_batch_size": "32"},
    }
    recipes = [
        Cell(
            f"recipe {name}" + (f", batch {smaller[name]['train.global_batch_size']}" if name in smaller else ""),
            name,
            by_recipe[name],
            fields={**QUIET, **smaller.get(name, {}), **({"data.uri": data[name]} if name in data else {})},
        )
        for name in by_recipe
    ]
    return [
        *recipes,
        # a record every 10 steps, as by default, and a look at routing every 100, twice as often; the first compiles
        Cell(
            "summaries", "quick", 320, fields={"log.every_steps": "10", "log.observe_every_steps": "100"}, warm_up=110
        ),
        Cell("no summaries", "quick", 320, fields={**QUIET, "log.every_steps": "10"}, warm_up=110),
        Cell("one rank of one thread", "quick", 60, fields=ONE_THREAD),
        Cell("the same through Horovod", "quick", 60, horovod=True, fields=ONE_THREAD),
        Cell("two ranks of one thread", "quick", 60, ranks=2, fields=ONE_THREAD),
    ]


RATIOS = [
    ("summaries", "no summaries", "what summaries leave of the speed"),
    ("the same through Horovod", "one rank of one thread", "what Horovod leaves of the speed at size 1"),
    ("two ranks of one thread", "one rank of one thread", "two ranks against one (2 would be perfect)"),
]


def images_per_second(cell: Cell, folder: Path, records: int | None = None) -> float:
    """Runs a cell on a set of so many records. Raises RuntimeError with what it printed where it fails."""
    config = configs.load(cell.recipe)
    batch = int(cell.fields.get("train.global_batch_size", config.train.global_batch_size))
    fields = {
        "log.every_steps": "1",
        "evaluate.every_epochs": "0",
        "checkpoint.every_seconds": "0",
        **cell.fields,
    }
    run = folder / f"{time.monotonic_ns()}"
    command = [sys.executable, "-m", "trainer", "launch", "--ranks", str(cell.ranks), "train", cell.recipe]
    command += ["--run", str(run), f"--train.epochs={_epochs(cell, batch, records)}"]
    command += [f"--{name}={value}" for name, value in fields.items()]
    environment = {**os.environ, **({ENV_HOROVOD: "1"} if cell.horovod else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{cell.name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in lines if record["kind"] == "train" and record["step"] >= cell.warm_up]
    return (train[-1]["step"] - train[0]["step"]) * batch / (train[-1]["seconds"] - train[0]["seconds"])


def _epochs(cell: Cell, batch: int, records: int | None) -> float:
    """The length in epochs that gives the steps: the sets here have 10,000 or RANDOM_RECORDS records."""
    records = records or (10_000 if "data.uri" not in cell.fields else RANDOM_RECORDS)
    lanes = configs.load(cell.recipe).data.lanes
    per_epoch = (records // lanes) // (batch // lanes)
    return cell.steps / per_epoch


RANDOM_RECORDS = 512


def random_set(folder: Path, size: int, classes: int, shards: int) -> str:
    """Noise as JPEG, which is the slowest to decode; what is learned does not matter here."""
    random = np.random.default_rng(0)

    def records(count: int) -> list[Record]:
        found = []
        for number in range(count):
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(stream, "JPEG")
            found.append(Record(stream.getvalue(), number % classes, f"{number}.jpg"))
        return found

    write_dataset(
        folder,
        {
            "train": Source(records(RANDOM_RECORDS), RANDOM_RECORDS, shards),
            "test": Source(records(32), 32, 1),
        },
        name=folder.name,
        classes=tuple(f"class {number}" for number in range(classes)),
        source="random noise",
        licence="none needed",
        command="make bench",
    )
    return str(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="interleaved runs of each cell (default: 3)")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the measurements here")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lanes = configs.load("imagenet").data.lanes
        data = {
            "sabour2017_cifar10": random_set(folder / "small", 32, 10, 8),
            "imagenet": random_set(folder / "large", 192, 1000, lanes),
        }
        chosen = [cell for cell in cells(data) if parsed.only in cell.name]
        rates = _measure(chosen, parsed.repeats, folder)
    _print_table(rates)
    if parsed.json:
        parsed.json.write_text(json.dumps(rates, indent=2) + "\n")
    return 0


def _measure(chosen: list[Cell], repeats: int, folder: Path) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {cell.name: [] for cell in chosen}
    total, done, began = repeats * len(chosen), 0, time.monotonic()
    for _ in range(repeats):
        for cell in chosen:
            eta = clock((time.monotonic() - began) / done * (total - done)) if done else "-:--"
            print(f"[{done + 1}/{total}, ETA {eta}] {cell.name}", file=sys.stderr, flush=True)
            rates[cell.name].append(images_per_second(cell, folder))
            done += 1
    return rates


def _print_table(rates: dict[str, list[float]]) -> None:
    width = max(map(len, rates), default=0)
    print(f"{'cell':{width}}  images/s   (lowest .. highest)")
    for name, values in rates.items():
        print(f"{name:{width}}  {statistics.median(values):8.1f}   ({min(values):.1f} .. {max(values):.1f})")
    for name, baseline, meaning in RATIOS:
        if rates.get(name) and rates.get(baseline):
            ratios = [mine / other for mine, other in zip(rates[name], rates[baseline], strict=True)]
            print(f"{meaning}: {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})")


if __name__ == "__main__":
    sys.exit(main())
