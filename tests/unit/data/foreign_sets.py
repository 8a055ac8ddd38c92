"""TFRecords as others write them, made with TensorFlow: TFDS and Inception layouts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tests.unit.data.small_sets import CLASSES, pixels_of, png

Values = dict[str, bytes | int]
SYNSETS = ("n01", "n02", "n03")


def serialized(values: Values) -> bytes:
    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = tf.train.Features(feature={key: feature(value) for key, value in values.items()})
    return tf.train.Example(features=features).SerializeToString()


def write(path: Path, records: list[Values], options: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for values in records:
            writer.write(serialized(values))


def jpeg(number: int, size: tuple[int, int] = (6, 6)) -> bytes:
    """A colour image of that height and width."""
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


def tfds_record(number: int) -> Values:
    return {"image": png(pixels_of(number)), "label": number % 3}


def inception_record(number: int) -> Values:
    return {
        "image/encoded": jpeg(number),
        "image/class/label": number % 3 + 1,
        "image/class/synset": SYNSETS[number % 3].encode(),
        "image/class/text": CLASSES[number % 3].encode(),
        "image/height": 6,
        "image/width": 6,
    }


def write_shards(
    folder: Path, pattern: str, count: int, shards: int, record: Callable[[int], Values], first: int = 0
) -> None:
    """``pattern`` takes number and count of shards."""
    for number in range(shards):
        start, stop = count * number // shards, count * (number + 1) // shards
        write(folder / pattern.format(number, shards), [record(first + at) for at in range(start, stop)])


def tfds(folder: Path) -> Path:
    """200 train records from number 0, 40 test records from 1000."""
    write_shards(folder, "tiny-train.tfrecord-{:05d}-of-{:05d}", 200, 5, tfds_record)
    write_shards(folder, "tiny-test.tfrecord-{:05d}-of-{:05d}", 40, 2, tfds_record, 1000)
    (folder / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "features.json").write_text(
        json.dumps({"featuresDict": {"features": {"label": {"classLabel": {"numClasses": "3"}}}}})
    )
    info = {
        "name": "tiny_set",
        "redistributionInfo": {"license": "free"},
        "splits": [{"name": "train", "shardLengths": ["40"] * 5}, {"name": "test", "shardLengths": ["20", "20"]}],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def inception(folder: Path) -> Path:
    """The same numbers as ``tfds``, splits in folders."""
    write_shards(folder, "train/train-{:05d}-of-{:05d}", 200, 5, inception_record)
    write_shards(folder, "validation/validation-{:05d}-of-{:05d}", 40, 2, inception_record, 1000)
    return folder
