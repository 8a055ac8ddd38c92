"""Values of an event: scalar, histogram, text, image."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, DATA_CLASS_TENSOR, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from trainer.summaries.tags import Tag


def filled(tag: Tag, **values: Any) -> Tag:
    """A tag whose places have these values."""
    return Tag(tag.name.format(**values), tag.description.format(**values))


def scalar(tag: Tag, value: float) -> list[Any]:
    """A value, or none where it is not finite."""
    return list(scalar_pb(tag.name, value, description=tag.description).value) if np.isfinite(value) else []


def histogram(tag: Tag, data: NDArray[Any]) -> list[Any]:
    """A value of the finite part of ``data``, or none where there is none."""
    finite = data[np.isfinite(data)]
    return list(histogram_pb(tag.name, finite, description=tag.description).value) if finite.size else []


def text(tag: Tag, content: str) -> Any:
    return text_pb(tag.name, content, description=tag.description).value[0]


def layout(content: Layout) -> Any:
    metadata = layout_metadata.create_summary_metadata()
    metadata.data_class = DATA_CLASS_TENSOR
    tensor = TensorProto(dtype=DT_STRING, string_val=[content.SerializeToString(deterministic=True)])
    return Summary.Value(tag=layout_metadata.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)


def image(tag: Tag, image_HWC: NDArray[np.uint8]) -> Any:
    """uint8 [H, W, C] as a PNG."""
    metadata = image_metadata.create_summary_metadata(display_name=None, description=tag.description)
    metadata.data_class = DATA_CLASS_BLOB_SEQUENCE
    height, width, _ = image_HWC.shape
    parts = [str(width).encode(), str(height).encode(), tf.io.encode_png(image_HWC).numpy()]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    return Summary.Value(
        tag=tag.name, metadata=metadata, tensor=TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=parts)
    )
