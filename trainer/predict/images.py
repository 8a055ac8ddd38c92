"""From bytes to pixels as the run's tests see them, of any size and mode.

Odd images become what 'capsnet data prepare' makes of them. Where a run takes images of one size, another one gives its
central square, resized to that.

Axes: H W grid, C channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import RunConfig
from trainer.data import augment
from trainer.data.decoding import fitted_for_test
from trainer.data.index import Index
from trainer.data.prepare.images import BadImage, look
from trainer.data.prepare.request import Item

Pixels = NDArray[np.uint8]
Read = Callable[[bytes, str], Pixels]
"""Of an image file and its name; raises BadImage."""


@dataclass(frozen=True)
class Sizes:
    """``side`` of the squares that images must be before the run's preprocessing, None where it takes any."""

    side: int | None
    resize: str

    @classmethod
    def of(cls, config: RunConfig, index: Index | None) -> Sizes:
        """
        Args:
            index: of the data set, if it is known: crops are to be of images of its size.
        """
        resize, size = config.data.augment.resize, config.model.image_size
        if config.objects > 1:  # what is cropped are the things of a scene
            return cls(size, "none")
        if resize == "crop" and index is not None:
            image = index.image
            return cls(image.height_min if image.uniform and image.height_min == image.width_min else None, resize)
        return cls(size if resize == "none" else None, resize)


def reader(config: RunConfig, sizes: Sizes) -> Read:
    """Images uint8 [image_size, image_size, C], exactly as the tests of a run see those of its data set."""
    size = config.model.image_size

    def read(data: bytes, name: str) -> Pixels:
        if sizes.resize == "random_resized_crop":
            encoded = tf.constant(_plain(data, name))
            return _numpy(lambda: fitted_for_test(encoded, config, size))
        image_HWC = tf.constant(_brought(_decoded(data, name, config), sizes, size))
        return _numpy(lambda: augment.central_fit(image_HWC, size, sizes.resize))

    return read


def reader_for_export(config: RunConfig, sizes: Sizes) -> Read:
    """Images uint8 [H, W, C] of sizes that an export takes, which preprocesses them itself."""
    return lambda data, name: _brought(_decoded(data, name, config), sizes, config.model.image_size)


def _plain(data: bytes, name: str) -> bytes:
    return look(data, name, sampled=False).encoded


def _decoded(data: bytes, name: str, config: RunConfig) -> Pixels:
    encoded = _plain(data, name)
    return _numpy(lambda: tf.io.decode_png(encoded, channels=config.model.channels))  # takes JPEG as well


def _brought(image_HWC: Pixels, sizes: Sizes, size: int) -> Pixels:
    """An image as it is if its size is one that the preprocessing takes, else its central square, resized."""
    height, width = image_HWC.shape[:2]
    shorter = min(height, width)
    wanted = sizes.side
    if wanted is None:
        if sizes.resize != "crop" or shorter >= size:
            return image_HWC
        wanted = size
    if (height, width) == (wanted, wanted):
        return image_HWC
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square_HWC = image_HWC[top : top + shorter, left : left + shorter]
    return _numpy(lambda: augment.resized(tf.constant(square_HWC), wanted))


def _numpy(compute: Callable[[], tf.Tensor]) -> Pixels:
    try:
        pixels: Pixels = compute().numpy()
    except tf.errors.OpError as error:
        raise BadImage(str(error.message).splitlines()[0][:80]) from None
    return pixels


def pixels_of(items: Sequence[Item], read: Read, threads: int, ahead: int) -> Iterator[Pixels | str]:
    """Each image in its order, or in one line why there is none; ``ahead`` of them are read ahead."""
    pool = ThreadPoolExecutor(threads, "images")
    waiting: deque[Future[Pixels | str]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_read, item, read))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(item: Item, read: Read) -> Pixels | str:
    try:
        return read(item.read(), item.name)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (BadImage, ValueError) as error:
        return str(error)
