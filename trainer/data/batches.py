"""An iterator over batches that knows where its waiting comes from.

Three queues lie between the shards and the step: records read, images decoded, batches augmented. Who finds the last
one empty waits; the first empty one, seen from the shards, says for whom.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config as tf_config  # the public one cannot be asked, nor switched off

from trainer.errors import CapsnetError

Batch = dict[str, tf.Tensor]

READING, DECODING, AUGMENTING = STAGES = ("reading", "decoding", "augmenting")


class Flow:
    """How many batches have passed each point of a pipeline, and what went wrong in its first part.

    The counters are only ever added to, each by one thread.
    """

    def __init__(self) -> None:
        self.read = self.read_taken = self.decoded = self.decoded_taken = self.augmented = 0
        self.failure: CapsnetError | None = None

    def counting(self, name: str, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor, counted as one batch when it is computed."""

        def count() -> np.int64:
            setattr(self, name, getattr(self, name) + 1)
            return np.int64(0)

        with tf.control_dependencies([tf.numpy_function(count, [], tf.int64, stateful=True)]):
            return tf.identity(tensor)

    def bottleneck(self, served: int) -> str | None:
        """The stage that a step must wait for; None where its batch is ready."""
        if self.augmented > served:
            return None
        if self.decoded > self.decoded_taken or self.decoded_taken > self.augmented:
            return AUGMENTING
        return DECODING if self.read > self.read_taken or self.read_taken > self.decoded else READING


class Batches(Iterator[Batch]):
    """An iterator over batches; closing or dropping it ends its threads.

    A damaged record ends the iteration, at the batch that holds it, with a DataError that names the record.

    Attributes:
        waits: seconds waited for batches so far, by stage; the first batch, which starts everything, is left out.
    """

    def __init__(
        self, open_from: Callable[[int], tuple[tf.data.Dataset, Flow]], explain: Callable[[int], bool]
    ) -> None:
        """
        Args:
            open_from: the batches from a number on.
            explain: looks at the batch of that number after a failure; raises what the failure deserves, or says
                whether to go on without the records that it found.
        """
        self._open_from, self._explain = open_from, explain
        self._served = self._opened_at = 0
        self.waits = dict.fromkeys(STAGES, 0.0)
        dataset, self._flow = open_from(0)
        self.element_spec: dict[str, tf.TensorSpec] = dataset.element_spec
        self._iterator = [started(dataset)]
        self._closing: list[Callable[[], None]] = []
        # also at exit: tf.data threads must not call into a Python that is going down
        self._finalizer = weakref.finalize(self, self._iterator.clear)

    def __next__(self) -> Batch:
        began, stage = time.monotonic(), self._flow.bottleneck(self._served - self._opened_at)
        batch = self._next()
        if stage and self._served:
            self.waits[stage] += time.monotonic() - began
        self._served += 1
        return batch

    def _next(self) -> Batch:
        while self._iterator:
            try:
                batch: Batch = next(self._iterator[0])
                return batch
            except StopIteration:
                self.close()
                raise
            except tf.errors.OpError:
                self._iterator.clear()
                failure = self._flow.failure
                if failure is not None or not self._explain(self._served):
                    self.close()
                    if failure is not None:
                        raise failure from None
                    raise
                dataset, self._flow = self._open_from(self._served)
                self._opened_at = self._served
                self._iterator.append(started(dataset))
        raise StopIteration

    def on_close(self, act: Callable[[], None]) -> None:
        """Something else that ends with the iteration."""
        weakref.finalize(self, act)
        self._closing.append(act)

    def close(self) -> None:
        self._finalizer()
        for act in self._closing:
            act()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def started(dataset: tf.data.Dataset) -> Iterator[Batch]:
    """The iterator of a dataset that works ahead of its use, whatever is asked of TensorFlow's operations.

    With op determinism TensorFlow rewrites a dataset that calls Python so that nothing of it runs in parallel or in the
    background. It does so when the iterator is made; a dataset of which each part is in order does not need it.
    """
    if not tf_config.is_op_determinism_enabled():
        return iter(dataset)
    tf_config.disable_op_determinism()
    try:
        return iter(dataset)
    finally:
        tf_config.enable_op_determinism()
