"""Peaks of graphs that are small enough to be told by hand; sizes in float32.

Axes: B batch, N features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from trainer import held

B, N = 8, 16
SPEC = tf.TensorSpec([B, N], tf.float32)
ROWS, SQUARE = 4 * B * N, 4 * N * N
WEIGHTS = np.ones([N, N], np.float32)


def peak(function: Callable[[tf.Tensor], tf.Tensor], *, xla: bool = False) -> int:
    compiled = tf.function(function, autograph=False, jit_compile=xla)
    outer = tf.function(lambda x: compiled(x), autograph=False) if xla else compiled
    return held.peak(outer.get_concrete_function(SPEC).graph)


def two_products(x: tf.Tensor) -> tf.Tensor:
    return (x @ WEIGHTS) @ WEIGHTS  # the first is held while the second is made


def three_products(x: tf.Tensor) -> tf.Tensor:
    return two_products(x) @ WEIGHTS  # the first is gone before the third


def kept(x: tf.Tensor) -> tf.Tensor:
    first = x @ WEIGHTS
    return tf.concat([three_products(first), first], 0)  # the first, and the result of two


def in_place(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(tf.reshape(x @ WEIGHTS, [-1]))


def branches(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ WEIGHTS, lambda: three_products(x))


def loop(x: tf.Tensor) -> tf.Tensor:
    start = x @ WEIGHTS
    return tf.while_loop(lambda turn, _: turn < 3, lambda turn, now: (turn + 1, now + x @ WEIGHTS), (0, start))[1]


@pytest.mark.parametrize(
    ("function", "rows"), [(two_products, 2), (three_products, 2), (kept, 4), (in_place, 1), (branches, 2), (loop, 2)]
)
def test_a_result_is_held_until_it_was_last_read(function: Callable[[tf.Tensor], tf.Tensor], rows: int) -> None:
    assert rows * ROWS <= peak(function) <= rows * ROWS + 64  # beside them some scalars


def test_the_gradient_of_a_product_needs_its_input() -> None:
    def gradient(x: tf.Tensor) -> tf.Tensor:
        weights = tf.constant(WEIGHTS)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            total = tf.reduce_sum(tf.square((x @ weights) @ weights))
        return tape.gradient(total, weights)

    # the two gradients of the weights at once, with the first product or its gradient still to be read
    assert 2 * SQUARE <= peak(gradient) <= 2 * SQUARE + 4 * ROWS


def test_what_xla_fuses_is_not_held() -> None:
    def rows_sum(x: tf.Tensor) -> tf.Tensor:
        wide = tf.exp(x[:, :, None] + x[:, None, :])  # [B, N, N]
        return tf.reduce_sum(wide, axis=-1)

    assert peak(rows_sum) >= 4 * B * N * N
    assert peak(rows_sum, xla=True) <= 6 * ROWS
