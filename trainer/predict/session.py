"""Images through a network, batch by batch: rows as soon as they are known.

Axes: B batch, H W image, C channels, J classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np

from trainer import distributed, rundir
from trainer.data.prepare.request import Item
from trainer.errors import EXIT_DONE, EXIT_UNEXPECTED, note
from trainer.predict import pictures, rows
from trainer.predict.images import Pixels, pixels_of
from trainer.predict.networks import Network
from trainer.predict.rows import Table
from trainer.progress import Tally
from trainer.storage import atomic_write

Read = tuple[Item, Pixels | str]
"""An image, or why it cannot be used."""


class Session:
    """Once ``stop`` was called no further batch is begun, and ``stopped_after`` so many images."""

    def __init__(
        self, network: Network, table: Table, items: Sequence[Item], stream: TextIO, reconstructions: Path | None
    ) -> None:
        self._network, self._table, self._items = network, table, items
        self._stream, self._reconstructions = stream, reconstructions
        self._size = min(network.batch, len(items))
        self._tally = Tally("images", patient=True, stream=sys.stderr)
        self._asked_to_stop = False
        self._done = self._bad = 0
        self.stopped_after: int | None = None

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler; at the second signal the batch that runs is given up as well."""
        if self._asked_to_stop:
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def run(self) -> int:
        """Returns an exit code: EXIT_UNEXPECTED where some images could not be used."""
        rows.write(self._stream, [self._table.head()])
        self._tally(0, len(self._items))
        try:
            for batch in self._batches():
                self._do(batch)
                self._tally(self._done, len(self._items))
                if self._asked_to_stop:
                    break
        except KeyboardInterrupt:
            pass
        self._tally.end()
        if self._done < len(self._items):
            self.stopped_after = self._done
        if self._bad:
            note(f"{self._bad:,} of {self._done:,} images could not be used: see the column 'error'")
        return EXIT_UNEXPECTED if self._bad else EXIT_DONE

    def _batches(self) -> Iterator[list[Read]]:
        """Images of one size together, at most a batch of them, with those that cannot be used in between."""
        threads = distributed.placed().cores
        read = pixels_of(self._items, self._network.read, threads, ahead=2 * self._size)
        batch: list[Read] = []
        shape: tuple[int, ...] = ()
        for item, pixels in zip(self._items, read, strict=True):
            other = not isinstance(pixels, str) and shape not in ((), pixels.shape)
            if other or len(batch) == self._size:
                yield batch
                batch, shape = [], ()
            batch.append((item, pixels))
            shape = shape if isinstance(pixels, str) else pixels.shape
        if batch:
            yield batch

    def _do(self, batch: Sequence[Read]) -> None:
        """Rows of a batch, then its pictures."""
        seen = self._seen([pixels for _, pixels in batch if not isinstance(pixels, str)])
        written, drawn = [], {}
        for number, (item, pixels) in enumerate(batch, self._done + 1):
            if isinstance(pixels, str):
                self._bad += 1
                self._tally.end()
                note(f"{item.name}: {pixels}")
                written.append(self._table.error(item.name, pixels))
                continue
            scores_J, reconstruction = next(seen)
            written.append(self._table.row(item.name, scores_J))
            if reconstruction is not None:
                found = self._table.best(scores_J, self._network.objects)
                drawn[pictures.name(number, item.name)] = pictures.picture(pixels, reconstruction, found)
        if self._stream.isatty():
            self._tally.clear()
        rows.write(self._stream, written)
        for name, content in drawn.items():
            assert self._reconstructions is not None
            with rundir.told_plainly(self._reconstructions / name):
                atomic_write(self._reconstructions / name, content)
        self._done += len(batch)

    def _seen(self, images: list[Pixels]) -> Iterator[tuple[Any, Any]]:
        """Scores [J] and reconstruction, if there is one, of each."""
        if not images:
            return iter(())
        padding = images[:1] * (self._size - len(images)) if self._network.pads else []
        seen = self._network.look(np.stack([*images, *padding]))
        return zip(seen.scores_BJ, repeat(None) if seen.reconstruction is None else seen.reconstruction, strict=False)
