"""What is minimised, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.section import Section


class LossConfig(Section):
    kind: Literal["margin", "spread", "cross_entropy", "nll"] = Field(
        "margin", description="loss of the class scores; nll takes them for probabilities"
    )
    margin_positive: float = Field(
        0.9, gt=0, le=1, description="m+ of the margin loss: what a class that is there is to reach"
    )
    margin_negative: float = Field(
        0.1, ge=0, lt=1, description="m- of it: what a class that is absent is to stay below"
    )
    absent_weight: float = Field(0.5, gt=0, description="lambda of it: weight of absent classes")
    spread_margin: float = Field(0.9, gt=0, le=1, description="m of the spread loss; tests use it")
    spread_margin_start: float = Field(0.2, gt=0, le=1, description="m at the start, where spread_margin_epochs is set")
    spread_margin_epochs: float = Field(
        0.0,
        ge=0,
        description="epochs over which m goes linearly from its start to its end; 0: it does not change",
    )
    scale: float = Field(10.0, gt=0, description="class scores are multiplied by it before the softmax (cross_entropy)")
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the target that all classes get alike, in tests as well (cross_entropy, nll)",
    )
    reconstruction_weight: float = Field(0.0005, ge=0, description="weight of the squared error summed over pixels")

    @model_validator(mode="after")
    def _smoothing_has_a_target(self) -> Self:
        if self.label_smoothing and self.kind not in ("cross_entropy", "nll"):
            raise ValueError(
                f"label_smoothing is for kind cross_entropy and nll; {self.kind} has margins in its place: set it to 0"
            )
        return self


class OptimizerConfig(Section):
    kind: Literal["adam", "sgd"] = Field("adam", description="Adam, or SGD with Nesterov momentum")
    learning_rate: float = Field(0.001, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine", "step", "exponential"] = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    decay_rate: float = Field(0.1, gt=0, le=1, description="factor of the step and exponential schedules")
    decay_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="epochs at which a step is taken (step), or the one epoch after which the factor is reached"
    )
    final_fraction: float = Field(0.0, ge=0, le=1, description="of the peak, at the end (cosine)")
    beta_1: float = Field(0.9, ge=0, lt=1, description="of Adam: decay of the mean gradient a step")
    beta_2: float = Field(0.999, ge=0, lt=1, description="of Adam: decay of the mean squared gradient a step")
    epsilon: float = Field(1e-7, gt=0, description="of Adam: what is added to the denominator")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, of kernels and transforms, not of biases and norms")
    clip_norm: float = Field(0.0, ge=0, description="largest global norm of the gradient; 0: no clipping")
    average_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="tests, exports and predictions use an exponential mean of the weights with this decay a step; 0: "
        "the weights themselves",
    )

    @model_validator(mode="after")
    def _epochs_fit_schedule(self) -> Self:
        needed = {"step": "at least one value", "exponential": "exactly one value"}.get(self.schedule)
        count = len(self.decay_epochs)
        if (self.schedule == "step" and count < 1) or (self.schedule == "exponential" and count != 1):
            raise ValueError(f"decay_epochs needs {needed} with schedule {self.schedule}")
        return self
