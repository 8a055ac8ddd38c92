"""What a network costs, from its configuration alone, before TensorFlow is imported.

Counted are parameters, and the multiply-adds of a forward pass for one record: one for each product term of
convolutions (zeros that padding adds included, as profilers count) and matrix products, and of routing as
``routing/products.py`` says. Biases, normalisation, activations and softmax are left out.

Axes: I children, T transforms, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from trainer.config import ModelConfig
from trainer.errors import ConfigError
from trainer.model.routing import LayerSizes, products
from trainer.model.shapes import Shapes, projected, projects, shapes

FORWARD_AND_BACKWARD = 3
"""Multiply-adds of both passes, in those of the forward pass: a product has two gradients."""


@dataclass(frozen=True)
class Cost:
    """Of one part of a network."""

    parameters: int = 0
    multiply_adds: int = 0  # of a forward pass, for one record

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


@dataclass(frozen=True)
class Costs:
    """By part; a part that the network does not have costs nothing."""

    stem: Cost
    primary: Cost
    layers: Cost  # convolutional capsule layers
    head: Cost  # class capsules, or the control that stands for all capsules
    decoder: Cost  # of one object

    @property
    def capsules(self) -> Cost:
        """All of them, primary to class."""
        return self.primary + self.layers + self.head

    @property
    def total(self) -> Cost:
        return sum((getattr(self, part) for part in self.__dataclass_fields__), Cost())


def costs(config: ModelConfig) -> Costs:
    """Costs of the network that ``network.build`` makes from the same configuration.

    Raises:
        ConfigError: sizes that do not fit each other; see ``shapes.shapes`` and ``control_width``.
    """
    found = _with_capsules(config)
    if config.head.kind == "capsules":
        return found
    return replace(found, primary=Cost(), layers=Cost(), head=_control(config, control_width(config)))


def control_width(config: ModelConfig) -> int:
    """Channels of the control's convolution, with which its costs are nearest to those of the capsules it replaces.

    Raises:
        ConfigError: the smallest control costs more than the capsules do.
    """
    matched = "parameters" if config.head.kind == "conv_parameters" else "multiply_adds"
    found = _with_capsules(config)
    target, none, one = (getattr(cost, matched) for cost in (found.capsules, _control(config, 0), _control(config, 1)))
    width = round((target - none) / (one - none))
    if width < 1:
        raise ConfigError(
            f"model.head.kind {config.head.kind}: no control is as small as {target:,} {matched.replace('_', '-')} "
            f"of these capsules; use more model.primary.types or a smaller model.head.pose"
        )
    return width


def _control(config: ModelConfig, width: int) -> Cost:
    """See ``control.ConvolutionalHead``."""
    primary, channels = config.primary, config.stem.channels[-1]
    positions, window = shapes(config).primary_side ** 2, primary.kernel**2
    kernel = window * channels + channels * width if primary.grouped else window * channels * width
    inputs = width * (1 if shares_positions(config) else positions)
    outputs = config.classes * (1 + (config.head.pose if config.decoder.hidden else 0))
    return Cost(kernel + width + inputs * outputs + outputs, positions * kernel + inputs * outputs)


def shares_positions(config: ModelConfig) -> bool:
    """Whether what becomes of a child does not depend on where it is."""
    return config.head.transform != "full"


def _with_capsules(config: ModelConfig) -> Costs:
    sizes = shapes(config)
    head = LayerSizes(
        sizes.children, sizes.transforms, config.classes, sizes.child_pose, config.head.pose, config.pose_rows
    )
    return Costs(
        stem=Cost(sizes.stem_parameters, _stem(config, sizes)),
        primary=Cost(sizes.primary_parameters, _primary(config, sizes)),
        layers=Cost(
            sizes.layers_parameters,
            sum(layer.side**2 * products.multiply_adds(config.routing, layer.sizes) for layer in sizes.layers),
        ),
        head=Cost(sizes.head_parameters, _head(config, head)),
        decoder=Cost(sizes.decoder_parameters, _decoder(config)),
    )


def conv(side: int, kernel: int, inputs: int, outputs: int) -> int:
    """Multiply-adds of a convolution whose result is side x side."""
    return side * side * kernel * kernel * inputs * outputs


def _stem(config: ModelConfig, sizes: Shapes) -> int:
    stem, count, inputs = config.stem, 0, int(config.channels)
    if stem.kind == "conv":
        for side, kernel, outputs in zip(sizes.stem_sides, stem.kernel_sizes, stem.channels, strict=True):
            count += conv(side, kernel, inputs, outputs)
            inputs = outputs
        return count
    count, inputs = conv(config.image_size, 3, inputs, stem.channels[0]), stem.channels[0]
    for side, outputs, stride in zip(sizes.stem_sides, stem.channels, stem.strides, strict=True):
        for block in range(stem.blocks):
            count += conv(side, 3, inputs, outputs) + conv(side, 3, outputs, outputs)
            if projects(inputs, outputs, stride if block == 0 else 1):
                count += conv(side, 1, inputs, outputs)
            inputs = outputs
    return count


def _head(config: ModelConfig, sizes: LayerSizes) -> int:
    rank = config.head.rank
    if config.head.transform != "low_rank":
        return products.multiply_adds(config.routing, sizes)
    projection = sizes.children * sizes.child_pose * rank
    return projection + products.multiply_adds(config.routing, projected(sizes, rank))


def _primary(config: ModelConfig, sizes: Shapes) -> int:
    primary, side, channels = config.primary, sizes.primary_side, config.stem.channels[-1]
    count = conv(side, primary.kernel, 1 if primary.grouped else channels, primary.types * primary.pose)
    return count + (conv(side, primary.kernel, channels, primary.types) if primary.activation == "sigmoid" else 0)


def _decoder(config: ModelConfig) -> int:
    hidden = config.decoder.hidden
    widths = (config.classes * config.head.pose, *hidden, config.image_size**2 * config.channels) if hidden else ()
    return sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
