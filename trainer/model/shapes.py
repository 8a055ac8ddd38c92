"""Sizes of a network from its configuration alone, before TensorFlow is imported.

Axes: H W grid, I children, T child types, J parents (classes), P/Q child/parent pose size.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple

from trainer.config import ModelConfig, PrimaryConfig, RoutingConfig, StemConfig
from trainer.errors import ConfigError
from trainer.model.routing import LayerSizes, extra


class LayerShape(NamedTuple):
    """A convolutional capsule layer."""

    child_side: int
    child_types: int
    side: int
    sizes: LayerSizes  # of one window: its parents are the types at one position
    residual: bool  # its input is added to what it routes
    parameters: int


class Shapes(NamedTuple):
    """Grid sides (grids are square), numbers of capsules, and parameters by part."""

    stem_sides: tuple[int, ...]  # after each convolution or stage
    primary_side: int
    layers: tuple[LayerShape, ...]  # between primary and class capsules
    children: int  # I of the class capsules
    child_pose: int  # P of the class capsules
    transforms: int  # I, or T where the transform, or low_rank's projection, is shared over positions
    stem_parameters: int
    primary_parameters: int
    head_parameters: int
    decoder_parameters: int

    @property
    def head_side(self) -> int:
        """Of the grid that the class capsules see."""
        return self.layers[-1].side if self.layers else self.primary_side

    @property
    def layers_parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def parameters(self) -> int:
        capsules = self.primary_parameters + self.layers_parameters + self.head_parameters
        return self.stem_parameters + capsules + self.decoder_parameters


def shapes(config: ModelConfig) -> Shapes:
    """Sizes of the network that ``network.build`` makes from the same configuration, with its capsules: a control
    (``head.kind``) stands in their place and is sized after them; its own parameters are in ``costs.costs``.

    Raises:
        ConfigError: a grid shrinks below the kernel that follows, groups do not divide the channels, grouped primary
            capsules need another number of channels, or residual connections are asked for and no layer has room for
            one.
    """
    stem_sides = _conv_sides(config) if config.stem.kind == "conv" else _residual_sides(config)
    primary = config.primary
    _check_grouped(primary, config.stem.channels[-1])
    side = _side(stem_sides[-1], primary.kernel, primary.stride, primary.padding, "model.primary")
    layers = _layers(config, side)
    last_side, types, pose = side, primary.types, primary.pose
    if layers:
        last_side, types, pose = layers[-1].side, layers[-1].sizes.parents, layers[-1].sizes.pose
    children = last_side * last_side * types
    transforms = children if config.head.transform == "full" else types
    return Shapes(
        stem_sides=stem_sides,
        primary_side=side,
        layers=layers,
        children=children,
        child_pose=pose,
        transforms=transforms,
        stem_parameters=_stem_parameters(config.stem, config.channels),
        primary_parameters=_primary_parameters(primary, config.stem.channels[-1]),
        head_parameters=_head_parameters(
            config, LayerSizes(children, transforms, config.classes, pose, config.head.pose, config.pose_rows)
        ),
        decoder_parameters=_decoder_parameters(config),
    )


def _side(side: int, kernel: int, stride: int, padding: Literal["valid", "same"], where: str) -> int:
    if padding == "same":
        return math.ceil(side / stride)
    if side < kernel:
        raise ConfigError(
            f"{where}: the grid is {side}x{side} here, smaller than the kernel {kernel}x{kernel}: "
            "use a larger model.image_size, smaller kernels or strides, or padding same"
        )
    return (side - kernel) // stride + 1


def _check_groups(stem: StemConfig) -> None:
    for channels in stem.channels:
        if channels % stem.norm_groups:
            raise ConfigError(
                f"model.stem.norm_groups {stem.norm_groups} does not divide {channels} of model.stem.channels: "
                "change one of them"
            )


def _check_grouped(primary: PrimaryConfig, channels: int) -> None:
    if primary.grouped and primary.types * primary.pose != channels:
        raise ConfigError(
            f"model.primary.grouped: {primary.types} types of pose {primary.pose} need {primary.types * primary.pose} "
            f"channels of the stem, which has {channels}: change one of them"
        )


def _conv_sides(config: ModelConfig) -> tuple[int, ...]:
    stem, side, sides = config.stem, config.image_size, []
    if stem.norm != "none":
        _check_groups(stem)
    for index, (kernel, stride) in enumerate(zip(stem.kernel_sizes, stem.strides, strict=True)):
        side = _side(side, kernel, stride, stem.padding, f"model.stem, convolution {index}")
        sides.append(side)
    return tuple(sides)


def _residual_sides(config: ModelConfig) -> tuple[int, ...]:
    stem, side, sides = config.stem, config.image_size, []
    _check_groups(stem)
    for stride in stem.strides:
        side = math.ceil(side / stride)
        sides.append(side)
    return tuple(sides)


def _conv(kernel: int, inputs: int, outputs: int, bias: bool = True) -> int:
    return kernel * kernel * inputs * outputs + (outputs if bias else 0)


def _stem_parameters(stem: StemConfig, image_channels: int) -> int:
    count, inputs = 0, image_channels
    if stem.kind == "conv":
        for kernel, outputs in zip(stem.kernel_sizes, stem.channels, strict=True):
            count += _conv(kernel, inputs, outputs) + (0 if stem.norm == "none" else 2 * outputs)
            inputs = outputs
        return count
    count, inputs = _conv(3, inputs, stem.channels[0], bias=False), stem.channels[0]
    for outputs, stride in zip(stem.channels, stem.strides, strict=True):
        for block in range(stem.blocks):
            count += 2 * inputs + _conv(3, inputs, outputs, bias=False)
            count += 2 * outputs + _conv(3, outputs, outputs, bias=False)
            if projects(inputs, outputs, stride if block == 0 else 1):
                count += _conv(1, inputs, outputs, bias=False)
            inputs = outputs
    return count + 2 * inputs


def projects(inputs: int, outputs: int, stride: int) -> bool:
    """Whether a residual block needs a 1x1 convolution on its shortcut."""
    return stride != 1 or inputs != outputs


def _primary_parameters(primary: PrimaryConfig, inputs: int) -> int:
    outputs = primary.types * primary.pose
    gain_and_shift = 2 * primary.pose if primary.nonlinearity == "layer_norm" else 0
    activation = _conv(primary.kernel, inputs, primary.types) if primary.activation == "sigmoid" else 0
    return _conv(primary.kernel, 1 if primary.grouped else inputs, outputs) + gain_and_shift + activation


def _head_parameters(config: ModelConfig, sizes: LayerSizes) -> int:
    projection = 0
    if config.head.transform == "low_rank":
        projection = sizes.transforms * sizes.child_pose * config.head.rank
        sizes = projected(sizes, config.head.rank)
    transform = math.prod(sizes.transform_shape)
    routed = located(sizes) if config.head.coordinates else sizes
    return projection + transform + extra.parameters(config.routing, routed)


def projected(sizes: LayerSizes, rank: int) -> LayerSizes:
    """What is routed behind a projection of the children to ``rank`` numbers, where all share one transform."""
    return sizes._replace(transforms=1, child_pose=rank)


def located(sizes: LayerSizes) -> LayerSizes:
    """What is routed where row and column are added to a child's pose; its transform of them is not learned."""
    return sizes._replace(child_pose=sizes.child_pose + 2, rows=1)


def _layers(config: ModelConfig, side: int) -> tuple[LayerShape, ...]:
    found: list[LayerShape] = []
    child_types, child_pose, wanted = config.primary.types, config.primary.pose, config.layers
    sizes = zip(wanted.types, wanted.poses, wanted.kernels, wanted.strides, strict=True)
    for index, (types, pose, kernel, stride) in enumerate(sizes):
        below = side
        side = _side(below, kernel, stride, wanted.padding, f"model.layers, layer {index}")
        same = (side, types, pose) == (below, child_types, child_pose)
        children = kernel * kernel * child_types
        window = LayerSizes(children, children, types, child_pose, pose, config.pose_rows)
        parameters = _routed_parameters(config.routing, window)
        found.append(LayerShape(below, child_types, side, window, wanted.residual and same, parameters))
        child_types, child_pose = types, pose
    if wanted.residual and not any(layer.residual for layer in found):
        raise ConfigError(
            "model.layers.residual: no layer has the grid, types and pose size of its input: give one the same "
            "(kernel 1, or padding same and stride 1), or switch it off"
        )
    return tuple(found)


def _routed_parameters(routing: RoutingConfig, sizes: LayerSizes) -> int:
    return math.prod(sizes.transform_shape) + extra.parameters(routing, sizes)


def _decoder_parameters(config: ModelConfig) -> int:
    hidden = config.decoder.hidden
    if not hidden:
        return 0
    widths = (config.classes * config.head.pose, *hidden, config.image_size**2 * config.channels)
    return sum(inputs * outputs + outputs for inputs, outputs in itertools.pairwise(widths))
