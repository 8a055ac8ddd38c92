"""``make bench-xla``: what compiling passes and update as wholes (train.xla) makes of a recipe's training step.

A cell is a recipe's step, forward, backward and update, on images that are there, in a process of its own. Repeats are
interleaved; the ratio is the median over them. Memory is what a step holds at its peak above a process at rest.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from tools import cells
from trainer import configs
from trainer.config import with_overrides
from trainer.progress import clock

COMPILED = ("false", "true")


def main() -> int:
    parser = cells.arguments("make bench-xla", __doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", default=[], help="default: all")
    parser.add_argument("--batch", type=int, default=0, help="records of a step (default: the recipe's own)")
    parser.add_argument("--precision", default="", help="default: the recipe's own")
    parsed = parser.parse_args()
    if parsed.cell:
        print(json.dumps(_measure(**parsed.cell)))
        return 0
    fields = {"train.global_batch_size": str(parsed.batch)} if parsed.batch else {}
    fields |= {"train.precision": parsed.precision} if parsed.precision else {}
    recipes = parsed.recipes or configs.names()
    for recipe in recipes:
        with_overrides(configs.load(recipe), fields)  # what cannot be is said before anything is measured
    todo = [(recipe, xla) for _ in range(parsed.repeats) for recipe in recipes for xla in COMPILED]
    seconds: dict[tuple[str, str], list[float]] = {cell: [] for cell in todo}
    memory: dict[tuple[str, str], float] = {}
    began = time.monotonic()
    work = [(cell, False) for cell in todo] + [(cell, True) for cell in seconds]
    for done, ((recipe, xla), held) in enumerate(work):
        eta = clock((time.monotonic() - began) / done * (len(work) - done)) if done else "-:--"
        print(f"[{done + 1}/{len(work)}, ETA {eta}] {recipe}, train.xla {xla}", file=sys.stderr, flush=True)
        spec = {"recipe": recipe, "fields": {**fields, "train.xla": xla}}
        answer = cells.in_process("tools.bench_xla", spec, memory=held)
        if held:
            memory[recipe, xla] = answer["bytes"]
        else:
            seconds[recipe, xla].append(answer["seconds"])
    print(f"{'recipe, records of a step':32} {'ms':>8} {'compiled':>9} {'ratio':>6} {'MB held':>8} {'compiled':>9}")
    for recipe in recipes:
        plain, compiled = (seconds[recipe, xla] for xla in COMPILED)
        ratio = statistics.median(after / before for before, after in zip(plain, compiled, strict=True))
        records = with_overrides(configs.load(recipe), fields).train.global_batch_size
        times = f"{1e3 * statistics.median(plain):8.1f} {1e3 * statistics.median(compiled):9.1f} {ratio:6.2f}"
        sizes = f"{memory[recipe, 'false'] / 1e6:8,.0f} {memory[recipe, 'true'] / 1e6:9,.0f}"
        print(f"{f'{recipe}, {records}':32} {times} {sizes}")
    if parsed.json:
        rows = [{"recipe": recipe, "xla": xla, "seconds": values} for (recipe, xla), values in seconds.items()]
        parsed.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _measure(recipe: str, fields: dict[str, Any], memory: bool) -> dict[str, float]:
    cells.two_threads()
    from trainer.probe.passes import passes_of

    step = passes_of(with_overrides(configs.load(recipe), fields))["step"]
    found = cells.measure(step, memory=memory)
    return {"bytes": max(0.0, found)} if memory else {"seconds": found}


if __name__ == "__main__":
    sys.exit(main())
