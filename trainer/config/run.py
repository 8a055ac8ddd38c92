"""A run as a whole: its parts, and what has to fit between them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainer.config.data import DataConfig, StorageConfig
from trainer.config.learning import LossConfig, OptimizerConfig
from trainer.config.model import ModelConfig
from trainer.config.section import Section, neutral

Precision = Literal["float32", "float64", "bfloat16", "float16"]


class TrainConfig(Section):
    epochs: float = neutral(10.0, gt=0, description="length of the run; part of an epoch counts as part")
    global_batch_size: int = Field(128, ge=1, description="records of one update, over all ranks")
    accumulate: int = Field(1, ge=1, description="parts in which a rank's batch is computed, one after the other")
    precision: Precision = Field("float32", description="float16 and bfloat16 keep routing and losses in float32")
    initial_loss_scale: float = Field(2.0**15, ge=1, description="float16: first loss scale")
    loss_scale_growth_steps: int = Field(1000, ge=1, description="float16: good steps before the scale doubles")
    max_skipped_steps: int = Field(20, ge=1, description="float16: overflows in a row that count as divergence")
    xla: Literal["auto"] | bool = neutral(
        "auto",
        description="compile forward and backward pass, and the update, each as a whole; auto: on a GPU, as on a CPU "
        "convolutions get slower by it (model.routing.xla compiles the routing alone)",
    )
    tf32: bool = Field(
        True,
        description="float32: GPUs that can round the factors of products to 10 bits, as TensorFlow does itself",
    )
    deterministic: bool = Field(True, description="the same bits in every run on the same kind of machine")
    threads: int = neutral(0, ge=0, description="compute threads of a rank; 0: the cores, shared among local ranks")
    compression: Literal["none", "float16"] = Field("none", description="of gradients while they are reduced")
    budget_seconds: float = neutral(0.0, ge=0, description="stop with a checkpoint within this wall time; 0: no limit")


class EvaluateConfig(Section):
    every_epochs: float = neutral(1.0, ge=0, description="epochs between tests; 0: only at the end")
    batch_size: int = neutral(256, ge=1, description="records of one rank's batch")


class CheckpointConfig(Section):
    every_seconds: float = neutral(60.0, ge=0, description="seconds between checkpoints; 0: not by time")
    every_steps: int = neutral(0, ge=0, description="steps between checkpoints; 0: not by steps")
    keep_last: int = neutral(2, ge=1, description="newest checkpoints that are kept; the best is kept beside them")


class LogConfig(Section):
    every_steps: int = neutral(10, ge=1, description="steps between records in metrics.jsonl and scalars")
    observe_every_steps: int = neutral(200, ge=0, description="steps between looks at routing and images; 0: never")
    observe_records: int = neutral(32, ge=1, description="test records whose routing and reconstructions are looked at")
    coupling_records: int = neutral(
        8, ge=1, description="of these, records whose couplings are held as they are: R x I x J numbers each"
    )
    profile_steps: tuple[int, ...] = neutral((), description="first and last step that rank 0 profiles for TensorBoard")
    horovod_timeline: bool = neutral(
        False, description="rank 0 writes horovod-timeline.json, for chrome://tracing: what each reduction waited for"
    )
    print_seconds: float = neutral(5.0, gt=0, description="seconds between plain lines when there is no terminal")

    @model_validator(mode="after")
    def _profile_is_a_range(self) -> Self:
        given = self.profile_steps
        if given and (len(given) != 2 or not 1 <= given[0] <= given[1]):
            raise ValueError(f"profile_steps is FIRST,LAST, as 100,110, not {','.join(map(str, given))}")
        return self


class WatchdogConfig(Section):
    silence_seconds: float = neutral(30.0, gt=0, description="a rank not heard of for so long is taken for dead")
    hang_seconds: float = neutral(600.0, gt=0, description="no progress for so long ends the run")
    start_seconds: float = neutral(1800.0, gt=0, description="the same before the first step, compilation included")
    stop_seconds: float = neutral(60.0, gt=0, description="a stop, save included, may take so long; then it is forced")


class RunConfig(Section):
    """Everything that defines a run."""

    recipe: str = neutral("", description="name of the recipe this came from")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of weights, order and augmentation")
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
    def _loss_takes_the_scores(self) -> Self:
        if self.model.head.scores == "linear" and self.loss.kind != "cross_entropy":
            raise ValueError(
                f"model.head.scores linear has no bounds, and loss.kind {self.loss.kind} takes scores for lengths or "
                "probabilities: use cross_entropy, or scores logistic"
            )
        return self

    @model_validator(mode="after")
    def _overlap_fits_the_rest(self) -> Self:
        overlap = self.data.overlap
        if not overlap.enabled:
            return self
        if self.loss.kind == "spread":
            raise ValueError(
                "data.overlap.enabled: loss.kind spread knows one class only; take margin or cross_entropy"
            )
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

    @model_validator(mode="after")
    def _turned_once(self) -> Self:
        if self.data.rotations > 1 and self.data.overlap.enabled:
            raise ValueError("data.rotations: of the two images of data.overlap neither is turned; set one of the two")
        return self

    @property
    def source_size(self) -> int:
        """H = W of an image before it becomes a part of what the network sees."""
        return self.model.image_size - (2 * self.data.overlap.shift if self.data.overlap.enabled else 0)

    @property
    def objects(self) -> int:
        """Classes that are present in what the network sees."""
        return 2 if self.data.overlap.enabled else 1
