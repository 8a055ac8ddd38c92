"""The one writer of a run's event files, and taking back what a resume makes again.

Axes: N observed records, H W image, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import eventfiles
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.data.index import Index
from trainer.model import shapes
from trainer.model.network import CapsNet
from trainer.summaries import alarm, pictures, said, tags, values
from trainer.summaries.alarm import Signs
from trainer.summaries.look import REACH, Look, make_look
from trainer.summaries.routing import layer_values
from trainer.summaries.tags import Tag
from trainer.weights import norms_by_layer


def take_back(folder: Path, step: int, evaluated_step: int | None = None) -> None:
    """Removes from the event files in ``folder`` all that is beyond ``step``, and a record cut short by a kill.

    Args:
        evaluated_step: the last evaluation that is kept, where that is earlier than ``step``: one that was cut off
            behind its record will be made, and written, again.

    Raises:
        CheckpointError: a file cannot be read or written.
    """

    def is_beyond(event: Any) -> bool:
        again = evaluated_step is not None and event.step > evaluated_step and _is_test(event)
        return bool(event.step > step or again)

    eventfiles.take_back(folder, is_beyond)


def _is_test(event: Any) -> bool:
    return any(value.tag == tags.TEST["accuracy"].name for value in event.summary.value)


class Board:
    """The one writer of a run's event files.

    Each call writes one event and is with the operating system when it returns; values that are not finite are left
    out. Every method but ``close`` raises InterruptedRun where the disk is full.
    """

    def __init__(self, folder: Path, config: RunConfig, network: CapsNet, index: Index) -> None:
        """Writes nothing yet; reads what earlier parts of the run said, so as to say it once. Raises OSError."""
        self._config, self._network, self._labels = config, network, data_index.label_names(index, config)
        self._confusion_at: int | None = None
        self._file = eventfiles.EventFile(folder)
        self._look = make_look(config, network)
        once = [
            values.text(tags.CONFIG, said.config_text(config, network, index)),
            values.layout(said.layout(network)),
            *said.hyperparameters(folder.name, config, network, index),
        ]
        self._unsaid = said.unsaid(folder, once)

    def train(self, step: int, means: Mapping[str, float], gradient_norms: Mapping[str, float] = {}) -> None:
        """Means since the record before, by the names of ``tags.TRAIN``; any other name is a term of the loss.

        Args:
            gradient_norms: of this step, by layer.
        """
        norms = [
            value
            for layer, norm in gradient_norms.items()
            for value in values.scalar(values.filled(tags.GRADIENT, layer=layer), norm)
        ]
        self._write(step, [*_scalars(means, tags.TRAIN, tags.TRAIN_TERM), *norms])

    def test(self, step: int, means: Mapping[str, float], confusion_JJ: NDArray[np.int64] | None = None) -> None:
        """Means over the test records, by the names of ``tags.TEST``; any other name is a term of the loss.

        Args:
            confusion_JJ: records; rows: the right class, columns: the one that was found. Drawn no more often than
                other pictures, by ``log.observe_every_steps``: drawing takes as long as a few steps.
        """
        found = _scalars(means, tags.TEST, tags.TEST_TERM)
        every, before = self._config.log.observe_every_steps, self._confusion_at
        if confusion_JJ is not None and every and (before is None or step - before >= every):
            found.append(self._confusion(step, confusion_JJ))
            self._confusion_at = step
        self._write(step, found)

    def observe(self, step: int, batch: Mapping[str, tf.Tensor]) -> Signs:
        """Looks at routing, capsule lengths, weights and reconstructions of the first ``log.observe_records`` records.

        Args:
            batch: image [b, H, W, C] in 0..1, label [b] or [b, 2]; a new b costs a compilation.
        Returns:
            What signs of dying there are.
        """
        count = self._config.log.observe_records
        images_NHWC = batch["image"][:count]
        look = _as_arrays(self._look(images_NHWC, batch["label"][:count]))
        found: list[Any] = []
        for layer, seen in look.layers.items():
            found += layer_values(layer, seen, self._config)
        for layer, norm in norms_by_layer(self._network).items():
            found += values.scalar(values.filled(tags.WEIGHT, layer=layer), norm)
        signs = alarm.signs(look, self._config)
        if signs.possible:
            found += values.scalar(alarm.tag(self._config, signs), signs.count)
        self._write(step, [*found, *self._pictures(np.asarray(images_NHWC), look)])
        return signs

    def flush(self) -> None:
        """Makes what was written survive a power cut as well."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _confusion(self, step: int, confusion_JJ: NDArray[np.int64]) -> Any:
        from trainer.summaries import figures

        right, records = int(np.trace(confusion_JJ)), max(int(confusion_JJ.sum()), 1)
        title = f"{records:,} test records, step {step}\naccuracy {100 * right / records:.2f} %"
        drawn = figures.confusion(confusion_JJ, self._labels, title)
        return values.image(tags.CONFUSION, figures.pixels(drawn))

    def _pictures(self, images_NHWC: np.ndarray, look: Look) -> list[Any]:
        found = []
        if look.outputs.reconstruction_BHWC is not None and look.varied_QSHWC is not None:
            pairs = pictures.side_by_side(images_NHWC, look.outputs.reconstruction_BHWC)
            reach = {"least": -REACH, "most": REACH}
            found += [
                values.image(tags.RECONSTRUCTIONS, pairs),
                values.image(values.filled(tags.DIMENSIONS, **reach), pictures.varied(look.varied_QSHWC)),
            ]
        side = shapes.shapes(self._config.model).head_side
        head = look.layers.get(self._network.class_capsules.name) if self._network.control is None else None
        if head is not None and side > 1:
            maps = pictures.coupling_maps(
                images_NHWC,
                head.trace.coupling_RNIJ,
                head.trace.children.activations_BN[: head.trace.coupling_RNIJ.shape[1]],
                np.argmax(look.outputs.class_scores_BJ, axis=-1)[: head.trace.coupling_RNIJ.shape[1]],
                side,
            )
            found.append(values.image(tags.COUPLING_MAPS, maps))
        return found

    def _write(self, step: int, found: Iterable[Any]) -> None:
        self._file.write(step, [*self._unsaid, *found])
        self._unsaid = []


def _scalars(means: Mapping[str, float], known: Mapping[str, Tag], term: Tag) -> list[Any]:
    described = {name: known.get(name, Tag(term.name.format(name), term.description)) for name in means}
    return [value for name, tag in described.items() for value in values.scalar(tag, means[name])]


def _as_arrays(look: Look) -> Look:
    return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), look)
