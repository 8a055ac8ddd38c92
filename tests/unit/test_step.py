"""The training step on one rank: what is applied, skipped and reported."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import config as c
from trainer import losses, optimizer, step
from trainer.distributed import World
from trainer.model import network

BASE = {
    "model.stem.channels": "4",
    "model.stem.kernel": "9",
    "model.stem.strides": "4",
    "model.primary.types": "2",
    "model.primary.kernel": "3",
    "model.decoder.hidden": "8",
    "model.routing.xla": "false",
    "train.global_batch_size": "8",
}


class Case:
    """A small network with its step."""

    def __init__(self, **fields: str) -> None:
        overrides = {name.replace("__", "."): value for name, value in fields.items()}
        self.config = c.with_overrides(c.RunConfig(), {**BASE, **overrides})
        self.net = network.build(self.config.model, precision=self.config.train.precision)
        self.update: keras.optimizers.Optimizer = optimizer.build_optimizer(
            self.config.optimizer, self.net.trainable_variables
        )
        self.scale = step.LossScale.create(self.config)
        self.counter = tf.Variable(0, dtype=tf.int64)
        rate = optimizer.learning_rate(self.config.optimizer, 10, 100)
        margin = losses.spread_margin_schedule(self.config.loss, 10)
        self.step = step.make_step(self.config, self.net, self.update, rate, self.scale, self.counter, World(), margin)

    def weights(self) -> list[np.ndarray]:
        return [np.array(variable.numpy()) for variable in self.net.trainable_variables]


def batch(records: int = 8) -> dict[str, tf.Tensor]:
    random = np.random.default_rng(0)
    return {
        "image": tf.constant(random.random((records, 28, 28, 1)), tf.float32),
        "label": tf.constant(random.integers(0, 10, records), tf.int32),
        "whole": tf.ones(records, tf.bool),
    }


def test_the_loss_is_the_sum_of_its_terms_and_falls() -> None:
    case = Case()
    reports = [case.step(batch(), 0) for _ in range(20)]
    assert reports[0].terms == ("margin", "reconstruction")
    assert reports[0].mean("loss") == pytest.approx(reports[0].mean("margin") + reports[0].mean("reconstruction"))
    assert reports[-1].mean("loss") < reports[0].mean("loss")
    assert int(case.counter) == 20
    assert reports[0].learning_rate == pytest.approx(0.001)


@pytest.mark.parametrize("parts", ["2", "4", "8"])
def test_accumulation_is_the_same_step_in_parts(parts: str) -> None:
    """In float64 the parts add up to the whole but for rounding."""
    whole = Case(train__precision="float64", optimizer__kind="sgd")
    in_parts = Case(train__precision="float64", optimizer__kind="sgd", train__accumulate=parts)
    for _ in range(3):
        ours, theirs = in_parts.step(batch(), 0), whole.step(batch(), 0)
        assert ours.mean("loss") == pytest.approx(theirs.mean("loss"), rel=1e-12)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-10)
    for ours_weight, theirs_weight in zip(in_parts.weights(), whole.weights(), strict=True):
        np.testing.assert_allclose(ours_weight, theirs_weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parts", ["1", "2"])
@pytest.mark.parametrize("implementation", ["stored", "streamed"])
def test_a_step_compiled_as_a_whole_is_the_same_step(implementation: str, parts: str) -> None:
    """In float64 but for rounding: XLA adds in another order."""
    fields = {"train__precision": "float64", "model__routing__implementation": implementation}
    fields |= {"train__accumulate": parts, "optimizer__kind": "sgd"}
    plain, compiled = Case(**fields), Case(train__xla="true", **fields)
    for _ in range(3):
        ours, theirs = compiled.step(batch(), 0), plain.step(batch(), 0)
        assert ours.mean("loss") == pytest.approx(theirs.mean("loss"), rel=1e-12)
    for ours_weight, theirs_weight in zip(compiled.weights(), plain.weights(), strict=True):
        np.testing.assert_allclose(ours_weight, theirs_weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parts", ["1", "2"])
def test_the_spread_margin_is_that_of_the_step(parts: str) -> None:
    case = Case(
        loss__kind="spread", loss__spread_margin_epochs="0.4", train__precision="float64", train__accumulate=parts
    )
    fixed = {m: case.config.loss.model_copy(update={"spread_margin": m}) for m in (0.2, 0.375, 0.55, 0.725, 0.9)}
    for margin in (0.2, 0.375, 0.55, 0.725, 0.9, 0.9):  # four steps from 0.2 to 0.9
        config = fixed[margin]
        images_BHWC = tf.cast(batch()["image"], tf.float64)
        before = losses.loss_terms(config, case.net(images_BHWC), images_BHWC, batch()["label"])["spread"]
        # float64, in which compiled and plain sums may have another order
        assert case.step(batch(), 0).mean("spread") == pytest.approx(float(tf.reduce_mean(before)), rel=1e-9)


def test_a_loss_that_is_not_finite_leaves_everything_as_it_was() -> None:
    case = Case()
    case.step(batch(), 0)
    before, slots = case.weights(), [np.array(variable.numpy()) for variable in case.update.variables]
    poisoned = batch()
    poisoned["image"] = poisoned["image"] * np.nan
    report = case.step(poisoned, 0)
    assert not report.applied
    assert report.not_finite() == [
        "loss on rank 0 (terms: reconstruction)"
    ]  # ReLU makes 0 of NaN on the way to the margin
    for now, then in zip(case.weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for variable, then in zip(case.update.variables, slots, strict=True):
        np.testing.assert_array_equal(variable.numpy(), then)


def test_clipping_bounds_the_update_and_reports_the_norm_before() -> None:
    free, clipped = (
        Case(optimizer__kind="sgd", optimizer__momentum="0", optimizer__clip_norm=n) for n in ("0", "1e-3")
    )
    starts = clipped.weights()
    assert clipped.step(batch(), 0).gradient_norm == pytest.approx(free.step(batch(), 0).gradient_norm, rel=1e-5)
    moved = np.sqrt(sum(float(np.sum((now - then) ** 2)) for now, then in zip(clipped.weights(), starts, strict=True)))
    assert moved == pytest.approx(1e-3 * 0.001, rel=1e-2)  # norm times learning rate; float32 weights


def test_a_stop_wish_is_in_the_report() -> None:
    case = Case()
    assert case.step(batch(), 0).stop == 0
    assert case.step(batch(), 2).stop == 2


def test_an_overflow_under_float16_skips_the_update_and_halves_the_scale() -> None:
    case = Case(train__precision="float16", train__initial_loss_scale="1e38")
    before = case.weights()
    report = case.step(batch(), 0)
    assert not report.applied
    assert np.isfinite(report.mean("loss"))
    assert report.not_finite() == []
    assert float(case.scale.scale) == pytest.approx(5e37)
    assert int(case.scale.skipped) == 1
    for now, then in zip(case.weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_loss_scale_grows_after_good_steps_and_does_not_change_the_update() -> None:
    case = Case(train__precision="float16", train__initial_loss_scale="64", train__loss_scale_growth_steps="3")
    norms = [case.step(batch(), 0).gradient_norm for _ in range(3)]
    assert float(case.scale.scale) == 128
    assert int(case.scale.good_steps) == 0
    unscaled = Case(train__precision="float16", train__initial_loss_scale="1")
    assert norms[0] == pytest.approx(unscaled.step(batch(), 0).gradient_norm, rel=0.02)  # float16 underflow at scale 1


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16"])
def test_every_precision_learns(precision: str) -> None:
    case = Case(train__precision=precision)
    reports = [case.step(batch(), 0) for _ in range(15)]
    assert all(report.applied for report in reports[-5:])
    assert reports[-1].mean("loss") < reports[0].mean("loss")


def test_weights_that_the_loss_does_not_reach_stay() -> None:
    case = Case(model__routing__algorithm="self_routing", model__decoder__hidden="", loss__kind="nll")
    before, report = case.weights(), case.step(batch(), 0)
    assert report.applied
    moved = {v.path: np.any(v.numpy() != old) for v, old in zip(case.net.trainable_variables, before, strict=True)}
    assert not moved["capsnet/class_capsules/transform"]  # scores are shares of the children's activations
    assert moved["capsnet/class_capsules/route"]


def crowded(records: int = 8) -> dict[str, tf.Tensor]:
    random = np.random.default_rng(0)
    return {
        **batch(records),
        "label": tf.constant([random.permutation(10)[:2] for _ in range(records)], tf.int32),
        "sources": tf.constant(random.random((records, 2, 28, 28, 1)), tf.float32),
    }


@pytest.mark.parametrize("parts", ["1", "4"])
def test_a_step_on_scenes_of_two(parts: str) -> None:
    fields = {"data__overlap__enabled": "true", "train__precision": "float64", "optimizer__kind": "sgd"}
    whole, in_parts = Case(**fields), Case(**fields, train__accumulate=parts)
    first, *_, last = [whole.step(crowded(), 0) for _ in range(15)]
    assert first.terms == ("margin", "reconstruction")
    assert last.mean("loss") < first.mean("loss")
    assert in_parts.step(crowded(), 0).mean("loss") == pytest.approx(first.mean("loss"), rel=1e-12)
    sources = crowded()["sources"]
    other = Case(**fields).step({**crowded(), "sources": sources[:, ::-1]}, 0)
    assert other.mean("margin") == first.mean("margin")
    assert other.mean("reconstruction") != first.mean("reconstruction")
