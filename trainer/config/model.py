"""The network: stem, primary, capsule layers and their routing, head, decoder."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, model_validator

from trainer.config.section import Positive, Section, as_typed, neutral


class StemConfig(Section):
    kind: Literal["conv", "residual"] = Field(
        "conv", description="plain convolutions with ReLU, or residual stages with group normalisation"
    )
    channels: tuple[Positive, ...] = Field((256,), min_length=1, description="channels of each convolution or stage")
    kernel: int = Field(9, ge=1, description="kernel size in pixels (conv)")
    kernels: tuple[Positive, ...] = Field((), description="kernel size of each convolution, where they differ (conv)")
    strides: tuple[Positive, ...] = Field((1,), min_length=1, description="stride of each convolution or stage")
    padding: Literal["valid", "same"] = Field("valid", description="padding of the convolutions (conv)")
    blocks: int = Field(1, ge=1, description="residual blocks of each stage (residual)")
    norm: Literal["none", "group", "group_last"] = Field(
        "none", description="normalisation after each convolution: before its ReLU, or group_last: after it (conv)"
    )
    norm_groups: int = Field(8, ge=1, description="groups of group normalisation; it never looks at other records")

    @model_validator(mode="after")
    def _one_stride_each(self) -> Self:
        if len(self.strides) != len(self.channels):
            raise ValueError(f"strides has {len(self.strides)} values and channels {len(self.channels)}: give one each")
        if self.kernels and len(self.kernels) != len(self.channels):
            raise ValueError(f"kernels has {len(self.kernels)} values and channels {len(self.channels)}: give one each")
        return self

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Of each convolution (conv)."""
        return self.kernels or (self.kernel,) * len(self.channels)


class PrimaryConfig(Section):
    types: int = Field(32, ge=1, description="capsule types at each position")
    pose: int = Field(8, ge=1, description="P, numbers of a pose")
    kernel: int = Field(9, ge=1, description="kernel size of the convolution that makes the capsules")
    stride: int = Field(2, ge=1, description="its stride")
    padding: Literal["valid", "same"] = Field("valid", description="its padding")
    grouped: bool = Field(
        False, description="each number of a pose comes from one channel of the stem, which has types x pose channels"
    )
    nonlinearity: Literal["squash", "squash_exponential", "layer_norm", "none"] = Field(
        "squash", description="of poses: squash (Sabour et al. 2017), 1 - 1/e^|s| (Mazzia et al. 2021), or layer_norm"
    )
    activation: Literal["length", "sigmoid"] = Field(
        "length", description="of a capsule: the length of its pose, or the sigmoid of a convolution of its own"
    )


class LayersConfig(Section):
    """Convolutional capsule layers between primary and class capsules; every routing algorithm works in them."""

    types: tuple[int, ...] = Field((), description="parent types of each layer; empty: no such layers")
    poses: tuple[int, ...] = Field((), description="pose size of each layer")
    kernels: tuple[int, ...] = Field((), description="a parent sees a window of so many positions each way; 1: its own")
    strides: tuple[int, ...] = Field((), description="positions from window to window, of each layer")
    padding: Literal["valid", "same"] = Field("valid", description="windows within the grid, or zeros around it")
    residual: bool = Field(
        False, description="add its input to what a layer routes, wherever grid, types and pose size stay the same"
    )

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        for name in ("poses", "kernels", "strides"):
            count = len(getattr(self, name))
            if count != len(self.types):
                raise ValueError(f"{name} has {count} values and types {len(self.types)}: give one for each layer")
        for name in ("types", "poses", "kernels", "strides"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"{name} must be at least 1 in each layer")
        return self


class EmConfig(Section):
    inverse_temperature: float = Field(4.0, gt=0, description="lambda, limit of its schedule over the iterations")
    inverse_temperature_decay: float = Field(
        0.5, ge=0, lt=1, description="d of lambda (1 - d^t) at iteration t = 1, 2, ...; 0: lambda from the first on"
    )


class RoutingConfig(Section):
    algorithm: Literal["dynamic", "em", "inverted", "self_routing", "self_attention", "uniform", "random"] = Field(
        "dynamic",
        description="dynamic (Sabour et al. 2017), em (Hinton et al. 2018), inverted dot-product attention (Tsai et "
        "al. 2020), self_routing (Hahn et al. 2019), self_attention (Mazzia et al. 2021), or as controls couplings "
        "that are uniform, or random",
    )
    iterations: int = Field(3, ge=1, le=20, description="R, routing iterations")
    leaky: bool = Field(False, description="a none-of-the-above parent takes part in the softmax")
    bias: bool = Field(False, description="add a learned bias to each parent before its nonlinearity")
    stop_gradient: bool = Field(False, description="send gradients through the last iteration only")
    agreement: Literal["dot", "cosine"] = Field("dot", description="of vote and parent: their product, or its cosine")
    temperature: float = Field(
        1.0, gt=0, description="routing logits are divided by it before the softmax (dynamic); above 1: more uniform"
    )
    concurrent: bool = Field(
        False, description="capsule layers iterate together and not one after the other (inverted)"
    )
    implementation: Literal["auto", "stored", "streamed"] = neutral(
        "auto",
        description="all votes in memory, or made again block by block wherever they are needed; auto goes by "
        "sizes, the device and xla",
    )
    memory_bytes: ByteSize = neutral(
        ByteSize(2**30), gt=0, description="what a layer may hold between its passes, as 1GiB"
    )
    block_bytes: ByteSize = neutral(
        ByteSize(0), ge=0, description="votes of a block where they are made again, as 64MiB; 0 goes by the device"
    )
    xla: bool = neutral(True, description="compile the routing (not the convolutions) with XLA")
    em: EmConfig = EmConfig()

    @model_validator(mode="after")
    def _votes_can_be_streamed(self) -> Self:
        if self.implementation == "streamed" and (why := self.needs_votes):
            raise ValueError(f"{why}: use implementation stored or auto")
        return self

    @property
    def by_cosine(self) -> bool:
        """Whether votes are compared by their directions."""
        return self.algorithm == "dynamic" and self.agreement == "cosine"

    @property
    def needs_votes(self) -> str | None:
        """Why votes are not made again block by block, or None where they can be."""
        if self.algorithm == "em":
            return "em compares each vote with the mean of all"
        if self.algorithm == "inverted" and self.concurrent:
            return "concurrent iterations begin with poses of the parents"
        return None


class HeadConfig(Section):
    kind: Literal["capsules", "conv_parameters", "conv_multiply_adds"] = Field(
        "capsules",
        description="capsules, or a control: a convolution and a dense layer in place of primary and class capsules, "
        "with as many parameters, or multiply-adds, as these have",
    )
    scores: Literal["logistic", "linear"] = Field(
        "logistic",
        description="of a control: in 0..1, as lengths are, for margin losses; or without bounds, for cross_entropy "
        "with loss.scale 1",
    )
    pose: int = Field(16, ge=1, description="Q, numbers of a class capsule's pose")
    transform: Literal["full", "shared", "low_rank"] = Field(
        "full",
        description="a transform for each child; one for each child type, shared over positions; or low_rank: a "
        "projection for each child type to head.rank numbers, and one transform of these for all children",
    )
    rank: int = Field(16, ge=1, description="K, numbers that low_rank projects a child's pose to")
    initial_scale: Literal["fixed", "parents"] = Field(
        "fixed",
        description="of the transform: head.initial_stddev at any size, or so that class capsules start with the same "
        "length at any number of classes",
    )
    initial_stddev: float = Field(
        0.1, gt=0, description="standard deviation of the transform at first, as in the authors' code (fixed)"
    )
    coordinates: bool = Field(
        False,
        description="add row and column of a child's position to its votes, where positions share transforms (for em: "
        "where a parent's length counts, it begins near 1 by them)",
    )

    @model_validator(mode="after")
    def _capsules_have_lengths(self) -> Self:
        if self.scores == "linear" and self.kind == "capsules":
            raise ValueError("scores linear is for the controls without capsules: leave it, or set kind")
        return self

    @model_validator(mode="after")
    def _coordinates_have_a_place(self) -> Self:
        if self.coordinates and self.transform == "full":
            raise ValueError("coordinates are for transforms that positions share: use transform shared or low_rank")
        if self.coordinates and self.pose < 2:
            raise ValueError("coordinates need a pose of at least two numbers")
        return self


class DecoderConfig(Section):
    hidden: tuple[Positive, ...] = Field((512, 1024), description="units of the hidden layers; empty: no decoder")


class ModelConfig(Section):
    image_size: int = Field(28, ge=4, le=1024, description="H = W, pixels that the network sees")
    channels: Annotated[Literal[1, 3], BeforeValidator(as_typed)] = Field(1, description="C, colour channels")
    classes: int = Field(10, ge=2, description="J, parents of the last layer")
    matrix_poses: bool = Field(
        False, description="poses are square matrices M with votes M W (Hinton et al. 2018), in place of vectors"
    )
    stem: StemConfig = StemConfig()
    primary: PrimaryConfig = PrimaryConfig()
    layers: LayersConfig = LayersConfig()
    routing: RoutingConfig = RoutingConfig()
    head: HeadConfig = HeadConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _concurrent_layers_have_no_residual(self) -> Self:
        if self.routing.concurrent and self.layers.residual:
            raise ValueError("routing.concurrent and layers.residual exclude each other: set one of them to false")
        return self

    @model_validator(mode="after")
    def _matrices_are_square(self) -> Self:
        if not self.matrix_poses:
            return self
        sizes = {self.primary.pose, *self.layers.poses, self.head.pose}
        if len(sizes) > 1 or math.isqrt(self.head.pose) ** 2 != self.head.pose:
            listed = ", ".join(map(str, sorted(sizes)))
            raise ValueError(f"matrix_poses: all pose sizes must be one square number, as 16 for 4x4, not {listed}")
        if self.head.transform == "low_rank":
            raise ValueError("matrix_poses: head.transform low_rank is for vectors; use shared")
        return self

    @property
    def pose_rows(self) -> int:
        """Rows of a pose: 1 of a vector."""
        return math.isqrt(self.head.pose) if self.matrix_poses else 1
