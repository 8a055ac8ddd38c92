"""Group normalisation (Wu and He 2018) that reads and writes its features as seldom as it can.

On a CPU it is bound by memory: Keras's own takes twice as long, forward and backward, much of it in the gradients of
broadcasts. Sums are taken by channel, all else is a scale and an offset for each record and channel.

Axes: B batch, H W grid, X positions = H x W, C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.model.squash import at_least_float32

Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


class GroupNormalization(keras.layers.GroupNormalization):
    """[B, H, W, C] -> the same: groups of channels of each record get mean 0 and variance 1, then gain and shift.

    Inside at least float32. Weights and their names are Keras's.
    """

    def call(self, features_BHWC: tf.Tensor) -> tf.Tensor:
        gain_C, shift_C = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        _, height, width, channels = features_BHWC.shape
        wide_BXC = at_least_float32(tf.reshape(features_BHWC, [-1, height * width, channels]))
        gain_C, shift_C = (tf.cast(value, wide_BXC.dtype) for value in (gain_C, shift_C))
        normal_BXC = _normalise(wide_BXC, gain_C, shift_C, self.groups, self.epsilon)
        return tf.reshape(tf.cast(normal_BXC, features_BHWC.dtype), [-1, height, width, channels])


def _normalise(x_BXC: tf.Tensor, gain_C: tf.Tensor, shift_C: tf.Tensor, groups: int, epsilon: float) -> tf.Tensor:
    """y = gain (x - mean) / sqrt(variance + epsilon) + shift (equations 1, 2 and 6)."""
    _, positions, channels = x_BXC.shape
    size = channels // groups

    def group_mean(of_channels_BC: tf.Tensor) -> tf.Tensor:
        """Means over groups of values that are sums over positions, for each of their channels."""
        mean_BG = tf.reduce_sum(tf.reshape(of_channels_BC, [-1, groups, size]), axis=-1) / (positions * size)
        return tf.repeat(mean_BG, size, axis=1)

    @tf.custom_gradient
    def normalise(x_BXC: tf.Tensor, gain_C: tf.Tensor, shift_C: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
        mean_BC = group_mean(tf.reduce_sum(x_BXC, axis=1))
        square_BC = tf.reduce_sum(tf.math.squared_difference(x_BXC, mean_BC[:, tf.newaxis]), axis=1)
        inverse_BC = tf.math.rsqrt(group_mean(square_BC) + epsilon)  # 1 / standard deviation
        scale_BC = inverse_BC * gain_C
        y_BXC = x_BXC * scale_BC[:, tf.newaxis] + (shift_C - mean_BC * scale_BC)[:, tf.newaxis]

        def gradient(dy_BXC: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # with n = (x - mean) / std: dx = (gain dy - mean(gain dy) - n mean(gain dy n)) / std, means over the group
            dshift_BC = tf.reduce_sum(dy_BXC, axis=1)
            dgain_BC = (tf.reduce_sum(dy_BXC * x_BXC, axis=1) - mean_BC * dshift_BC) * inverse_BC
            along_BC = group_mean(gain_C * dgain_BC) * inverse_BC * inverse_BC
            offset_BC = mean_BC * along_BC - group_mean(gain_C * dshift_BC) * inverse_BC
            dx_BXC = dy_BXC * scale_BC[:, tf.newaxis] - x_BXC * along_BC[:, tf.newaxis] + offset_BC[:, tf.newaxis]
            return dx_BXC, tf.reduce_sum(dgain_BC, axis=0), tf.reduce_sum(dshift_BC, axis=0)

        return y_BXC, gradient

    return normalise(x_BXC, gain_C, shift_C)
