"""What TensorBoard shows of a run, written by rank 0 into the run's folder.

Train and test curves are tags of one run ('accuracy/train', 'accuracy/test') and not two runs, so that a run is one
name in TensorBoard; a layout for its Custom Scalars page draws them in one chart.

Axes: N observed records, H W image, C channels, I children, J parents, R routing iterations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic.fields import FieldInfo
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, DATA_CLASS_TENSOR, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from trainer import config as configuration
from trainer import eventfiles
from trainer.config import RunConfig
from trainer.data.index import Index
from trainer.model.capsules import CapsuleLayer
from trainer.model.network import CapsNet, Outputs
from trainer.model.routing.trace import RoutingTrace

Array = NDArray[Any]

CONFIG_TAG = "run/config"
PICTURES_TAG = "pictures/reconstructions"
PICTURE_RECORDS = 16
PICTURE_PIXELS = 2**18  # of the images in one picture: large images are shown in smaller numbers
PICTURE_COLUMNS = 4
CELL_PIXELS = 56  # smaller images are shown larger
GAP, GREY = 4, 128


class Tag(NamedTuple):
    """Where a value stands in TensorBoard, and the explanation beside it."""

    name: str
    description: str


TRAIN = {
    "loss": Tag("loss/total", "Mean training loss of the steps since the point before: the sum of its terms."),
    "accuracy": Tag(
        "accuracy/train",
        "Share of the training records since the point before whose longest class capsule is the right one (of "
        "overlapping pairs: whose two longest are the right two), as augmented, and seen while the weights still "
        "changed.",
    ),
    "epoch": Tag("train/epoch", "Passes over the training data so far."),
    "learning_rate": Tag("train/learning_rate", "Learning rate of this step."),
    "gradient_norm": Tag("train/gradient_norm", "Norm of this step's gradient of all weights, before clipping."),
    "images_per_second": Tag("speed/images_per_second", "Training images per second, over all ranks."),
    "input_wait": Tag(
        "speed/input_wait",
        "Share of the time that rank 0 took to get its batches, 0 to 1, the handing over of those that were ready "
        "included. Well above 0.05: input is too slow.",
    ),
    "wait_reading": Tag("speed/input_wait_reading", "Its part that was waited for disk or network."),
    "wait_decoding": Tag("speed/input_wait_decoding", "Its part that was waited for decoding."),
    "wait_augmenting": Tag("speed/input_wait_augmenting", "Its part that was waited for augmentation."),
    "peak_memory_mib": Tag(
        "memory/peak_mib",
        "Most memory that rank 0's process had resident so far, in MiB: TensorFlow itself and evaluation included.",
    ),
}
TEST = {
    "loss": Tag("loss/total_test", "Mean loss over all test records: the sum of its terms."),
    "accuracy": Tag(
        "accuracy/test",
        "Share of all test records whose longest class capsule is the right one (of overlapping pairs: whose two "
        "longest are the right two).",
    ),
}
ROUTING = {
    "entropy": "Mean entropy of a child's couplings over its parents, divided by its largest value, at routing "
    "iteration {iteration} of {iterations}. 1: uniform, as iteration 1 always is; 0: each child has one parent. "
    "Where it stays at 1 in the last iteration, routing does nothing.",
    "effective_parents": "How many parents a child is spread over, mean of exp(entropy), at routing iteration "
    "{iteration} of {iterations}; of {parents} parents.",
    "unassigned": "Mean share of a child that goes to none of the parents, at routing iteration {iteration} of "
    "{iterations}.",
}


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
    return any(value.tag == TEST["accuracy"].name for value in event.summary.value)


class Board:
    """The one writer of a run's event files.

    Each call writes one event and is with the operating system when it returns; values that are not finite are left
    out. Every method but ``close`` raises InterruptedRun where the disk is full.
    """

    def __init__(self, folder: Path, config: RunConfig, network: CapsNet, index: Index) -> None:
        """Writes nothing yet; reads what earlier parts of the run said, so as to say it once. Raises OSError."""
        self._records = config.log.observe_records
        self._leaky = config.model.routing.leaky
        self._file = eventfiles.EventFile(folder)
        self._look = make_look(network)
        said = [_text(CONFIG_TAG, config_text(config, network, index)), _layout(layout(network))]
        self._unsaid = _changed(folder, said)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Means since the record before, by the names of ``TRAIN``; any other name is a term of the loss."""
        self._scalars(step, values, TRAIN, Tag("loss/{}", "Mean of this weighted term of the training loss."))

    def test(self, step: int, values: Mapping[str, float]) -> None:
        """Means over the test records, by the names of ``TEST``; any other name is a term of the loss."""
        self._scalars(step, values, TEST, Tag("loss/{}_test", "Mean of this weighted term over all test records."))

    def observe(self, step: int, batch: Mapping[str, tf.Tensor]) -> None:
        """Looks at routing, capsule lengths and reconstructions of the first ``log.observe_records`` records.

        Args:
            batch: image [b, H, W, C] in 0..1, label [b] or [b, 2]; a new b costs a compilation.
        """
        images_NHWC, labels_N = batch["image"][: self._records], batch["label"][: self._records]
        outputs = _as_arrays(self._look(images_NHWC, labels_N))
        values: list[Any] = []
        for layer, trace in outputs.traces.items():
            values += _routing_values(layer, trace, self._leaky)
        if outputs.reconstruction_BHWC is not None:
            picture_HWC = side_by_side(np.asarray(images_NHWC), outputs.reconstruction_BHWC)
            values.append(_image(PICTURES_TAG, picture_HWC, PICTURE_DESCRIPTION))
        self._write(step, values)

    def flush(self) -> None:
        """Makes what was written survive a power cut as well."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _scalars(self, step: int, values: Mapping[str, float], tags: Mapping[str, Tag], term: Tag) -> None:
        described = {name: tags.get(name, Tag(term.name.format(name), term.description)) for name in values}
        self._write(step, [v for name, tag in described.items() for v in _scalar(tag, values[name])])

    def _write(self, step: int, values: Iterable[Any]) -> None:
        self._file.write(step, [*self._unsaid, *values])
        self._unsaid = []


def make_look(network: CapsNet) -> Callable[[tf.Tensor, tf.Tensor], Outputs]:
    """A compiled forward pass that traces the routing: of (images_NHWC, labels_N), with no collective in it.

    It is rank 0's own: the step, which all ranks must run alike, knows nothing of it. Reads weights, changes nothing.
    """

    @tf.function
    def look(images_NHWC: tf.Tensor, labels_N: tf.Tensor) -> Outputs:
        return network(images_NHWC, labels_N, trace=True)

    return look


def _as_arrays(outputs: Outputs) -> Outputs:
    return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), outputs)


# what is said once


def _changed(folder: Path, values: list[Any]) -> list[Any]:
    """Those of ``values`` that the event files in ``folder`` do not say already, as the last word on their tags."""
    tags = {value.tag for value in values}
    last: dict[str, Any] = {}
    for path in eventfiles.paths(folder):
        for event in eventfiles.events(path):
            last.update((value.tag, value.tensor) for value in event.summary.value if value.tag in tags)
    return [value for value in values if last.get(value.tag) != value.tensor]


def config_text(config: RunConfig, network: CapsNet, index: Index) -> str:
    """The run in Markdown: a line about it, and its configuration, a table for each section."""
    split = index.splits[config.data.train_split]
    default = RunConfig()
    lines = [
        f"**{config.recipe or 'no recipe'}**: {network.count_params():,} parameters; data set {index.name}, "
        f"{len(index.classes)} classes, {split.records:,} training records. "
        "Bold: not the default. `config.json` in the run's folder holds the same.",
    ]
    sections: dict[str, list[tuple[str, FieldInfo]]] = {}
    for path, field in configuration.leaves():
        sections.setdefault(path.rpartition(".")[0], []).append((path, field))
    for section, leaves in sections.items():  # not one table of whole paths: TensorBoard breaks long words in it
        lines += ["", f"#### {section or 'run'}", "", "| field | value | meaning |", "|---|---|---|"]
        for path, field in leaves:
            value = configuration.value_at(config, path)
            shown = ", ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
            bold = "**" if value != configuration.value_at(default, path) and shown else ""
            name = path.rpartition(".")[2]
            lines.append(f"| {_cell(name)} | {bold}{_cell(shown)}{bold} | {_cell(field.description or '')} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text as it stands in a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def layout(network: CapsNet) -> Layout:
    """The Custom Scalars page: what belongs together in one chart."""
    layers = [layer.name for layer in network.layers if isinstance(layer, CapsuleLayer)]
    learns = [
        _chart("accuracy", "accuracy/(train|test)"),
        _chart("loss", "loss/total(_test)?"),
        _chart("terms of the loss", "loss/(?!total).*"),
    ]
    lives = [
        chart
        for layer in layers
        for chart in (
            _chart(f"{layer}: entropy of the couplings", f"routing/{re.escape(layer)}/entropy_iteration_.*"),
            _chart(f"{layer}: effective parents", f"routing/{re.escape(layer)}/effective_parents_iteration_.*"),
        )
    ]
    alive = [Category(title="Is routing alive?", chart=lives)] if lives else []
    return Layout(category=[Category(title="Does it learn?", chart=learns), *alive])


def _chart(title: str, pattern: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[pattern + "$"]))


# values of an event


def _scalar(tag: Tag, value: float) -> list[Any]:
    """A value, or none where it is not finite."""
    return list(scalar_pb(tag.name, value, description=tag.description).value) if np.isfinite(value) else []


def _histogram(tag: Tag, data: Array) -> list[Any]:
    """A value of the finite part of ``data``, or none where there is none."""
    finite = data[np.isfinite(data)]
    return list(histogram_pb(tag.name, finite, description=tag.description).value) if finite.size else []


def _text(tag: str, text: str) -> Any:
    return text_pb(tag, text, description="The configuration of the run.").value[0]


def _layout(content: Layout) -> Any:
    metadata = layout_metadata.create_summary_metadata()
    metadata.data_class = DATA_CLASS_TENSOR
    tensor = TensorProto(dtype=DT_STRING, string_val=[content.SerializeToString(deterministic=True)])
    return Summary.Value(tag=layout_metadata.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)


def _image(tag: str, image_HWC: Array, description: str) -> Any:
    """uint8 [H, W, C] as a PNG."""
    metadata = image_metadata.create_summary_metadata(display_name=None, description=description)
    metadata.data_class = DATA_CLASS_BLOB_SEQUENCE
    height, width, _ = image_HWC.shape
    parts = [str(width).encode(), str(height).encode(), tf.io.encode_png(image_HWC).numpy()]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    return Summary.Value(
        tag=tag, metadata=metadata, tensor=TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=parts)
    )


def _routing_values(layer: str, trace: RoutingTrace, leaky: bool) -> list[Any]:
    """What a trace of NumPy arrays says of one capsule layer."""
    per_iteration = {"entropy": trace.entropy_R, "effective_parents": trace.effective_parents_R}
    if leaky:
        per_iteration["unassigned"] = trace.unassigned_R
    iterations, parents = len(trace.entropy_R), trace.parents.activations_BN.shape[-1]
    values: list[Any] = []
    for name, value_R in per_iteration.items():
        for iteration, value in enumerate(value_R, 1):
            description = ROUTING[name].format(iteration=iteration, iterations=iterations, parents=parents)
            values += _scalar(Tag(f"routing/{layer}/{name}_iteration_{iteration}", description), value)
    child = Tag(
        f"capsules/{layer}/child_activations",
        f"Activations of the capsules that {layer} routes from: lengths, 0 to 1, unless routing has its own.",
    )
    parent = Tag(
        f"capsules/{layer}/parent_activations",
        f"Activations of the {parents} capsules that {layer} routes to: lengths, 0 to 1, unless routing has its own. "
        "Lengths all near 0: they are dying.",
    )
    return [*values, *_histogram(child, trace.children.activations_BN), *_histogram(parent, trace.parents.activations_BN)]


PICTURE_DESCRIPTION = (
    "Pairs: on the left what the network saw, on the right what the decoder made of the capsule of the true class; "
    "where two things overlap, of those of both true classes."
)


def side_by_side(images_NHWC: Array, reconstructions_NHWC: Array) -> NDArray[np.uint8]:
    """Pairs of image and reconstruction, both in 0..1, as one uint8 picture [H, W, C], on grey, four pairs a row.

    Of several reconstructions [N, objects, H, W, C] all stand beside the image. Small images are enlarged by a whole
    factor; what is not a number is black.
    """
    height, width = images_NHWC.shape[1:3]
    several = [reconstructions_NHWC] if reconstructions_NHWC.ndim == 4 else list(reconstructions_NHWC.swapaxes(0, 1))
    beside = [images_NHWC, *several]
    shown = max(1, min(len(images_NHWC), PICTURE_RECORDS, PICTURE_PIXELS // (len(beside) * height * width)))
    pairs_NHWC = np.concatenate([part[:shown] for part in beside], axis=2)
    pairs_NHWC = np.round(255 * np.clip(np.nan_to_num(pairs_NHWC, nan=0.0), 0, 1)).astype(np.uint8)
    factor = max(1, CELL_PIXELS // height)
    pairs_NHWC = pairs_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)
    pairs_NHWC = np.pad(pairs_NHWC, [(0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=GREY)
    columns = min(shown, PICTURE_COLUMNS)
    pairs_NHWC = np.pad(pairs_NHWC, [(0, -shown % columns), (0, 0), (0, 0), (0, 0)], constant_values=GREY)
    count, height, width, channels = pairs_NHWC.shape
    grid_HWC = pairs_NHWC.reshape(count // columns, columns, height, width, channels).swapaxes(1, 2)
    grid_HWC = grid_HWC.reshape(count // columns * height, columns * width, channels)
    return np.pad(grid_HWC, [(GAP, 0), (GAP, 0), (0, 0)], constant_values=GREY)
