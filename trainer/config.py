"""The description of a run: one frozen, validated tree of plain values.

What a run *is* stands here and nowhere else; what follows from it (batch of a rank, steps of an epoch) is
derived where it is needed. The number of ranks is not a fact of the run. Knows nothing of TensorFlow.

A field that may change between two parts of one run without changing what the run means is declared with
``neutral``; every other difference is refused on resume.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from trainer.errors import ConfigError

Precision = Literal["float32", "float64", "bfloat16", "float16"]


def neutral(default: Any, **constraints: Any) -> Any:
    """A field whose value does not change what is learned."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def _as_typed(value: Any) -> Any:
    """A choice between numbers knows them as numbers only, while a command line gives text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class StemConfig(Section):
    kind: Literal["conv", "residual"] = Field(
        "conv", description="plain convolutions with ReLU, or residual stages with group normalisation"
    )
    channels: tuple[int, ...] = Field((256,), min_length=1, description="channels of each convolution or stage")
    kernel: int = Field(9, ge=1, description="kernel size in pixels (conv)")
    kernels: tuple[int, ...] = Field((), description="kernel size of each convolution, where they differ (conv)")
    strides: tuple[int, ...] = Field((1,), min_length=1, description="stride of each convolution or stage")
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
        if any(kernel < 1 for kernel in self.kernels):
            raise ValueError("kernels: each is at least 1")
        return self

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Of each convolution (conv)."""
        return self.kernels or (self.kernel,) * len(self.channels)


class PrimaryConfig(Section):
    types: int = Field(32, ge=1, description="capsule types at each position")
    pose: int = Field(8, ge=1, description="P, size of a child's pose")
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
        description="all votes in memory, or made again block by block wherever they are needed; auto goes by sizes",
    )
    memory_bytes: ByteSize = neutral(
        ByteSize(2**30), gt=0, description="what a layer may hold between its passes, as 1GiB"
    )
    xla: bool = neutral(True, description="compile the routing (not the convolutions) with XLA")
    em: EmConfig = EmConfig()

    @model_validator(mode="after")
    def _votes_can_be_streamed(self) -> Self:
        if self.implementation == "streamed" and (why := self.needs_votes):
            raise ValueError(f"{why}: use implementation stored or auto")
        return self

    @property
    def needs_votes(self) -> str | None:
        """Why votes cannot be made again block by block, or None where they can."""
        if self.algorithm == "em":
            return "em compares each vote with the mean of all"
        if self.algorithm == "dynamic" and self.agreement == "cosine":
            return "agreement cosine needs the lengths of the votes"
        if self.algorithm == "inverted" and self.concurrent:
            return "concurrent iterations begin with poses of the parents"
        return None


class HeadConfig(Section):
    kind: Literal["capsules", "conv_parameters", "conv_multiply_adds"] = Field(
        "capsules",
        description="capsules, or a control: a convolution and a dense layer in place of primary and class capsules, "
        "with as many parameters, or multiply-adds, as these have",
    )
    pose: int = Field(16, ge=1, description="Q, size of a class capsule's pose")
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
        False, description="add row and column of a child's position to its votes, where positions share transforms"
    )

    @model_validator(mode="after")
    def _coordinates_have_a_place(self) -> Self:
        if self.coordinates and self.transform == "full":
            raise ValueError("coordinates are for transforms that positions share: use transform shared or low_rank")
        if self.coordinates and self.pose < 2:
            raise ValueError("coordinates need a pose of at least two numbers")
        return self


class DecoderConfig(Section):
    hidden: tuple[int, ...] = Field((512, 1024), description="units of the hidden layers; empty: no decoder")


class ModelConfig(Section):
    image_size: int = Field(28, ge=4, le=1024, description="H = W, pixels that the network sees")
    channels: Annotated[Literal[1, 3], BeforeValidator(_as_typed)] = Field(1, description="C, colour channels")
    classes: int = Field(10, ge=2, description="J of the last layer")
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


class LossConfig(Section):
    kind: Literal["margin", "spread", "cross_entropy", "nll"] = Field(
        "margin", description="loss of the class scores; nll takes them for probabilities"
    )
    margin_positive: float = Field(0.9, gt=0, le=1, description="m+, margin loss")
    margin_negative: float = Field(0.1, ge=0, lt=1, description="m-, margin loss")
    absent_weight: float = Field(0.5, gt=0, description="lambda, weight of absent classes, margin loss")
    spread_margin: float = Field(0.9, gt=0, le=1, description="m, spread loss; tests use it")
    spread_margin_start: float = Field(0.2, gt=0, le=1, description="m at the start, where spread_margin_epochs is set")
    spread_margin_epochs: float = Field(
        0.0,
        ge=0,
        description="epochs over which m goes linearly from its start to its end; 0: it does not change",
    )
    scale: float = Field(10.0, gt=0, description="class scores are multiplied by it before the softmax (cross_entropy)")
    reconstruction_weight: float = Field(0.0005, ge=0, description="weight of the squared error summed over pixels")


class OptimizerConfig(Section):
    kind: Literal["adam", "sgd"] = Field("adam", description="Adam, or SGD with Nesterov momentum")
    learning_rate: float = Field(0.001, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine", "step", "exponential"] = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    decay_rate: float = Field(0.1, gt=0, le=1, description="factor of the step and exponential schedules")
    decay_epochs: tuple[float, ...] = Field(
        (), description="epochs at which a step is taken (step), or the one epoch after which the factor is reached"
    )
    final_fraction: float = Field(0.0, ge=0, le=1, description="of the peak, at the end (cosine)")
    beta_1: float = Field(0.9, ge=0, lt=1, description="Adam")
    beta_2: float = Field(0.999, ge=0, lt=1, description="Adam")
    epsilon: float = Field(1e-7, gt=0, description="Adam")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, of kernels and transforms, not of biases and norms")
    clip_norm: float = Field(0.0, ge=0, description="largest global norm of the gradient; 0: no clipping")

    @model_validator(mode="after")
    def _epochs_fit_schedule(self) -> Self:
        needed = {"step": "at least one value", "exponential": "exactly one value"}.get(self.schedule)
        count = len(self.decay_epochs)
        if (self.schedule == "step" and count < 1) or (self.schedule == "exponential" and count != 1):
            raise ValueError(f"decay_epochs needs {needed} with schedule {self.schedule}")
        return self


class AugmentConfig(Section):
    shift: int = Field(0, ge=0, description="random shift of up to this many pixels, filled with zeros")
    flip: bool = Field(False, description="random horizontal flip")
    resize: Literal["none", "crop", "random_resized_crop"] = Field(
        "none",
        description="how an image becomes image_size: it is so already, a random crop (central in tests), "
        "or a random part of 8 to 100 % of the area (central in tests)",
    )


class OverlapConfig(Section):
    enabled: bool = Field(
        False,
        description="crowded scenes: each record is overlaid with one of another class, both are to be found; gray "
        "images are added and clipped at 255, of colour images the mean is taken where both lie",
    )
    shift: int = Field(
        4, ge=0, description="each image is shifted by up to this many pixels; image_size is the image's + 2 shift"
    )


class AffineConfig(Section):
    rotation: float = Field(0.0, ge=0, le=180, description="test images are rotated by up to so many degrees")
    shear: float = Field(0.0, ge=0, le=1, description="columns moved by up to so many columns a row, in tests")
    scale: float = Field(0.0, ge=0, lt=1, description="each axis scaled by 1 - scale to 1 + scale, in tests")
    shift: float = Field(0.0, ge=0, description="shifted by up to so many pixels each way, in tests; zeros come in")

    @property
    def enabled(self) -> bool:
        return any((self.rotation, self.shear, self.scale, self.shift))


STANDARD_AFFINE = AffineConfig(rotation=20, shear=0.2, scale=0.2, shift=2)
"""The bounds of affNIST, but for its shift, which a larger canvas has room for."""


class DataConfig(Section):
    uri: str = neutral("embedded", min_length=1, description="folder or gs://bucket/prefix of the shards, or embedded")
    train_split: str = Field("train", description="split that is trained on")
    test_split: str = Field("test", description="split that is evaluated")
    lanes: int = Field(
        8, ge=1, description="parallel record sequences that make up each global batch; ranks must divide it"
    )
    shuffle_window: int = Field(1024, ge=1, description="records of a lane that are shuffled together, across shards")
    interleave_shards: int = Field(8, ge=1, description="shards of a lane whose blocks are mixed into one window")
    augment: AugmentConfig = AugmentConfig()
    overlap: OverlapConfig = OverlapConfig()
    affine: AffineConfig = AffineConfig()
    scaled_decoding: bool = Field(
        True, description="decode JPEG at 1/2, 1/4 or 1/8 where the part that is used stays at least image_size"
    )
    tolerate_damaged: int = Field(
        0, ge=0, description="damaged records of an epoch, over all ranks, that are done without; more end the run"
    )
    prefetch: int = neutral(4, ge=1, description="batches prepared ahead")
    readers: int = neutral(
        0, ge=0, description="parallel readers and decoders of a rank; 0: the cores, shared among local ranks"
    )


class StorageConfig(Section):
    deadline_seconds: float = neutral(300.0, gt=0, description="Cloud Storage: give up after so long without progress")
    first_wait_seconds: float = neutral(0.5, gt=0, description="wait before the first retry; doubles, with jitter")
    longest_wait_seconds: float = neutral(30.0, gt=0, description="longest wait between two retries")
    stall_seconds: float = neutral(30.0, gt=0, description="a connection that is silent for so long is given up")
    connections: int = neutral(8, ge=1, description="parallel transfers of a rank")
    cache_dir: str = neutral("", description="folder of the shard cache; empty: capsnet under the user's cache folder")
    cache_bytes: ByteSize = neutral(
        ByteSize(20 * 2**30), ge=0, description="bound of the shard cache, as 20GiB; all ranks of a machine share it"
    )


class TrainConfig(Section):
    epochs: float = neutral(10.0, gt=0, description="length of the run; part of an epoch counts as part")
    global_batch_size: int = Field(128, ge=1, description="records of one update, over all ranks")
    accumulate: int = Field(1, ge=1, description="parts in which a rank's batch is computed, one after the other")
    precision: Precision = Field("float32", description="float16 and bfloat16 keep routing and losses in float32")
    initial_loss_scale: float = Field(2.0**15, ge=1, description="float16: first loss scale")
    loss_scale_growth_steps: int = Field(1000, ge=1, description="float16: good steps before the scale doubles")
    max_skipped_steps: int = Field(20, ge=1, description="float16: overflows in a row that count as divergence")
    deterministic: bool = Field(True, description="the same bits in every run on the same kind of machine")
    threads: int = neutral(0, ge=0, description="compute threads of a rank; 0: the cores, shared among local ranks")
    compression: Literal["none", "float16"] = Field("none", description="of gradients while they are reduced")
    budget_seconds: float = neutral(0.0, ge=0, description="stop with a checkpoint within this wall time; 0: no limit")


class EvaluateConfig(Section):
    every_epochs: float = neutral(1.0, ge=0, description="0: only at the end")
    batch_size: int = neutral(256, ge=1, description="records of one rank's batch")


class CheckpointConfig(Section):
    every_seconds: float = neutral(60.0, ge=0, description="0: not by time")
    every_steps: int = neutral(0, ge=0, description="0: not by steps")
    keep_last: int = neutral(2, ge=1, description="newest checkpoints that are kept; the best is kept beside them")


class LogConfig(Section):
    every_steps: int = neutral(10, ge=1, description="steps between records in metrics.jsonl and scalars")
    observe_every_steps: int = neutral(200, ge=0, description="steps between looks at routing and images; 0: never")
    observe_records: int = neutral(32, ge=1, description="records whose couplings and reconstructions are looked at")
    print_seconds: float = neutral(5.0, gt=0, description="seconds between plain lines when there is no terminal")


class WatchdogConfig(Section):
    silence_seconds: float = neutral(30.0, gt=0, description="a rank not heard of for so long is taken for dead")
    hang_seconds: float = neutral(600.0, gt=0, description="no progress for so long ends the run")
    start_seconds: float = neutral(1800.0, gt=0, description="the same before the first step, compilation included")
    stop_seconds: float = neutral(60.0, gt=0, description="a stop, save included, may take so long; then it is forced")


class RunConfig(Section):
    """Everything that defines a run."""

    recipe: str = neutral("", description="name of the recipe this came from")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order and augmentation")
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    storage: StorageConfig = StorageConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    watchdog: WatchdogConfig = WatchdogConfig()

    @model_validator(mode="after")
    def _batch_fits_lanes(self) -> Self:
        if self.train.global_batch_size % self.data.lanes:
            raise ValueError(
                f"train.global_batch_size {self.train.global_batch_size} is not a multiple of "
                f"data.lanes {self.data.lanes}: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _overlap_fits_the_rest(self) -> Self:
        overlap = self.data.overlap
        if not overlap.enabled:
            return self
        if self.loss.kind == "spread":
            raise ValueError("data.overlap.enabled: loss.kind spread knows one class only; take margin")
        if self.data.augment.shift:
            raise ValueError("data.overlap.enabled: data.overlap.shift shifts the images; set data.augment.shift to 0")
        if self.data.affine.enabled:
            raise ValueError("data.overlap.enabled: data.affine is for images of one thing; set one of the two")
        if self.source_size < 1:
            raise ValueError(
                f"model.image_size {self.model.image_size} leaves no image between data.overlap.shift {overlap.shift} "
                "on each side: it is to be the images' size + 2 data.overlap.shift"
            )
        return self

    @property
    def source_size(self) -> int:
        """H = W of an image before it becomes a part of what the network sees."""
        return self.model.image_size - (2 * self.data.overlap.shift if self.data.overlap.enabled else 0)

    @property
    def objects(self) -> int:
        """Classes that are present in what the network sees."""
        return 2 if self.data.overlap.enabled else 1


def leaves(section: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every value of a configuration as (dotted path, field), in the order of declaration."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def value_at(config: Section, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def nearest(name: str, known: list[str]) -> str:
    """' (did you mean X?)' or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:  # a last part alone, as in 'iterations' for 'model.routing.iterations'
        close = [path for path in known if path.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f" (did you mean {close[0]}?)" if close else ""


def with_overrides(config: RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The configuration with dotted paths replaced, validated as a whole.

    Values may be text as typed on a command line; lists are comma-separated.

    Raises:
        ConfigError: unknown path (with the nearest known one) or a value out of range.
    """
    fields = dict(leaves())
    tree = config.model_dump(mode="json")
    for path, value in overrides.items():
        if path not in fields:
            raise ConfigError(f"unknown field {path}{nearest(path, list(fields))}; 'capsnet train --help' lists all")
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        is_list = isinstance(node[last], list)
        node[last] = [part for part in value.split(",") if part] if is_list and isinstance(value, str) else value
    return validated(tree, "command line")


def validated(tree: dict[str, Any], source: str) -> RunConfig:
    """A configuration from plain values; ConfigError names the source and the first wrong field."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        reason = first["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
        if first["type"] == "extra_forbidden":
            reason = f"unknown field{nearest(path, [name for name, _ in leaves()])}"
        given = "" if isinstance(first["input"], dict | Section) else f" (given: {first['input']!r})"
        more = f"; {error.error_count() - 1} more wrong" if error.error_count() > 1 else ""
        raise ConfigError(f"{source}: {path + ': ' if path else ''}{reason}{given}{more}") from None


def load(path: Path) -> RunConfig:
    """Reads a config.json. Raises ConfigError where it is missing, not JSON or not valid."""
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); is this a run directory?") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    return validated(tree, str(path))


def dump(config: RunConfig) -> str:
    return config.model_dump_json(indent=2) + "\n"


def differences(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any, bool]]:
    """(path, old, new, neutral) for each value that differs."""
    found = []
    for path, field in leaves():
        before, after = value_at(old, path), value_at(new, path)
        if before != after:
            extra = field.json_schema_extra
            found.append((path, before, after, isinstance(extra, dict) and bool(extra.get("neutral"))))
    return found
