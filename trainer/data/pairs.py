"""Which records are overlaid with which: each record of a window with one of another class, that its own draw decides.

Axes: N records of a window, S those of them that are served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data import augment
from trainer.data.index import Index
from trainer.data.order import Int64, Window
from trainer.data.records import Served
from trainer.data.tfrecord import decode_example
from trainer.errors import DataError

NO_LABEL = -1


@dataclass(frozen=True)
class Pairs:
    """Turns windows into pairs of records: a record, its partner, the next record, its partner, and so on.

    Partners are found among all records of a window, so they do not depend on which part of it is served.
    """

    index: Index
    seed: int

    def __call__(self, records: list[bytes | str], window: Window, spare: Callable[[int], bool] | None) -> Served:
        """Served [2 S]. Of a pair with a damaged record the next whole pair takes the place, see ``spare``.

        Raises:
            DataError: all records are of one class, or no pair is whole.
        """
        labels_N = np.array([self._label(record) for record in records], np.int64)
        draws_N = augment.draws(self.seed, window.epoch, window.ids_N)[:, augment.PARTNER]
        pairs_N2 = np.stack([np.arange(len(records)), partners(labels_N, draws_N)], axis=1)
        whole_N = np.array([isinstance(record, bytes) for record in records])
        if spare is not None:
            whole_N &= ~np.array([spare(identity) for identity in window.ids_N.tolist()])
        whole_N = whole_N[pairs_N2].all(axis=1)
        shown_S = stand_ins(whole_N)[window.served]
        chosen = [records[number] for number in pairs_N2[shown_S].ravel().tolist()]
        return Served(
            [record for record in chosen if isinstance(record, bytes)],
            window.ids_N[pairs_N2[window.served].ravel()],
            np.repeat(whole_N[window.served], 2),
        )

    def _label(self, record: bytes | str) -> int:
        """The class, or NO_LABEL; what is wrong is said by those who decode it."""
        layout = self.index.layout
        try:
            values = decode_example(record)[layout.label] if isinstance(record, bytes) else []
        except (KeyError, ValueError):
            return NO_LABEL
        if len(values) != 1 or not isinstance(values[0], int):
            return NO_LABEL
        label = values[0] - layout.first_label
        return label if 0 <= label < len(self.index.classes) else NO_LABEL


def partners(labels_N: NDArray[np.int64], draws_N: NDArray[np.float64]) -> Int64:
    """For each record the number of another of another class: so far on as its draw says, then on to the first such.

    Args:
        labels_N: NO_LABEL for records that are nobody's partner.
        draws_N: in [0, 1).

    Raises:
        DataError: there is only one class.
    """
    count = len(labels_N)
    present = np.unique(labels_N[labels_N != NO_LABEL])
    if len(present) < 2:
        raise DataError(
            f"{count} records that are read together are of one class, data.overlap needs two: raise "
            "data.shuffle_window, or prepare the data set again so that it is shuffled"
        )
    found_N: Int64 = (np.arange(count) + (draws_N * count).astype(np.int64)) % count
    while True:
        wrong_N = (labels_N[found_N] == labels_N) | (labels_N[found_N] == NO_LABEL)
        if not wrong_N.any():
            return found_N
        found_N = np.where(wrong_N, (found_N + 1) % count, found_N)


def stand_ins(whole_N: NDArray[np.bool_]) -> Int64:
    """For each number itself where it is whole, else the next that is, or else the one before; DataError if none is."""
    places = np.flatnonzero(whole_N)
    if not len(places):
        raise DataError(f"{len(whole_N)} records that are read together are all damaged; copy the data set again")
    following = np.minimum(np.searchsorted(places, np.arange(len(whole_N))), len(places) - 1)
    return np.where(whole_N, np.arange(len(whole_N)), places[following])
