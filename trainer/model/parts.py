"""A large transform is several variables, cut along its first axis, and one tensor in a checkpoint.

Its gradient is then never held twice, as it is where the gradients of blocks are joined, and its reduction over ranks
can start while the rest is computed. Without TensorFlow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from trainer.model.routing import LayerSizes

PART_BYTES = 32 * 2**20
_PART = re.compile(r"_part_(\d+)")


def rows(sizes: LayerSizes) -> tuple[int, ...]:
    """Transforms of each part, in float32 at most PART_BYTES where one of them is no larger, and nearly the same."""
    most = max(1, PART_BYTES // (4 * math.prod(sizes.transform_shape[1:])))
    count = math.ceil(sizes.transforms / most)
    return tuple(sizes.transforms * (k + 1) // count - sizes.transforms * k // count for k in range(count))


def name(whole: str, part: int, parts: int) -> str:
    """The name of a part of a variable."""
    return whole if parts == 1 else f"{whole}_part_{part}"


def joined(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of parts by that of their whole, in order. The name of a slot of an optimizer holds that of a part."""
    wholes: dict[str, list[tuple[int, str]]] = {}
    for each in names:
        found = _PART.search(each)
        wholes.setdefault(whole(each), []).append((int(found[1]) if found else 0, each))
    return {key: [each for _, each in sorted(parts)] for key, parts in wholes.items()}


def whole(part: str) -> str:
    """The name without that of the part."""
    return _PART.sub("", part)
