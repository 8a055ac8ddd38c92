"""Routing against loops written from the paper, and properties that accuracy would not show.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import trainer.model.routing as routing
from tests.unit.model import oracles
from trainer.config import RoutingConfig
from trainer.model.routing import Capsules, LayerSizes, Transform
from trainer.model.routing import extra as extra_weights
from trainer.model.squash import lengths

EXACT = 1e-9  # float64: the epsilon under the root of squash, 1e-12 against squared lengths of 1e-2, a few times over
DIFFERENCE = 1e-6  # of a central difference with step 1e-5, times third derivatives of hundreds
SINGLE = 1e-5  # float32: sums of tens of terms in another order, 6e-8 each, through three softmaxes
B, I, J, P, Q = 2, 6, 3, 2, 4  # noqa: E741


OPTIONS = [
    dict(zip(("leaky", "bias", "transforms"), values, strict=True))
    for values in itertools.product((False, True), (False, True), (I, 2))
]

RULES = [*({"algorithm": name} for name in routing.names()), {"agreement": "cosine"}]
COSINE_STREAMED = {"agreement": "cosine", "implementation": "streamed", "xla": False}


def example(transforms: int = I, seed: int = 0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    poses_BIP = rng.normal(size=(B, I, P)) * 0.6
    transform_TPJQ = rng.normal(size=(transforms, J, P, Q)).transpose(0, 2, 1, 3)
    bias_JQ = rng.normal(size=(J, Q)) * 0.3
    return poses_BIP.astype(dtype), transform_TPJQ.astype(dtype), bias_JQ.astype(dtype)


def extras(config: RoutingConfig, dtype, seed: int = 9) -> dict[str, np.ndarray]:
    """Values for what an algorithm has besides the transform, away from their initial ones."""
    rng = np.random.default_rng(seed)
    specs = routing.get(config.algorithm).weights(config, LayerSizes(I, I, J, P, Q))
    return {name: (spec.initial + rng.normal(size=spec.shape) * 0.3).astype(dtype) for name, spec in specs.items()}


def route(poses_BIP, transform_TPJQ, bias_JQ=None, *, trace=False, records=0, extra=None, **options):
    config = RoutingConfig(bias=bias_JQ is not None, **options)
    poses_BIP = tf.convert_to_tensor(poses_BIP)
    wide = np.float64 if poses_BIP.dtype == tf.float64 else np.float32
    extra = extras(config, wide) if extra is None else extra
    parents, seen = routing.get(config.algorithm).route(
        Capsules(poses_BIP, lengths(poses_BIP)),
        Transform((tf.convert_to_tensor(transform_TPJQ),)),
        {name: tf.convert_to_tensor(value) for name, value in extra.items()}
        | ({} if bias_JQ is None else {"bias": tf.convert_to_tensor(bias_JQ)}),
        config,
        trace=trace,
        coupling_records=records,
    )
    if routing.get(config.algorithm).ACTIVATED_BY_LENGTH:
        np.testing.assert_array_equal(parents.activations_BN, lengths(parents.poses_BNP))
    return parents.poses_BNP, seen


def reordered(extra: dict[str, np.ndarray], size: int, order: np.ndarray) -> dict[str, np.ndarray]:
    """In another order along the axis of ``size``: children, parents and pose sizes are of different numbers."""
    return {
        name: value.take(order, axis=value.shape.index(size)) if size in value.shape else value
        for name, value in extra.items()
    }


def gradients(arguments, weights_BJQ, **options):
    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(route(*tensors, **options)[0] * weights_BJQ)
    return tape.gradient(total, tensors)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_dynamic_is_procedure_1(options: dict, iterations: int, xla: bool) -> None:
    poses_BIP, transform_TPJQ, bias_JQ = example(options["transforms"])
    bias_JQ = bias_JQ if options["bias"] else None
    expected_BJQ, coupling_RBIJ = oracles.dynamic_routing(
        poses_BIP, transform_TPJQ, iterations, leaky=options["leaky"], bias_JQ=bias_JQ
    )
    poses_BJQ, trace = route(
        poses_BIP,
        transform_TPJQ,
        bias_JQ,
        leaky=options["leaky"],
        iterations=iterations,
        xla=xla,
        trace=True,
        records=B,
    )
    np.testing.assert_allclose(poses_BJQ, expected_BJQ, rtol=EXACT)
    np.testing.assert_allclose(trace.coupling_RNIJ, coupling_RBIJ, rtol=EXACT)


@pytest.mark.parametrize("agreement", ["dot", "cosine"])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("transforms", [I, 2])
def test_agreement_and_temperature(agreement: str, temperature: float, transforms: int) -> None:
    poses_BIP, transform_TPJQ, _ = example(transforms)
    rule = {"agreement": agreement, "temperature": temperature}
    expected_BJQ, coupling_RBIJ = oracles.dynamic_routing(poses_BIP, transform_TPJQ, 3, **rule)
    poses_BJQ, trace = route(poses_BIP, transform_TPJQ, xla=False, trace=True, records=B, **rule)
    np.testing.assert_allclose(poses_BJQ, expected_BJQ, rtol=EXACT)
    np.testing.assert_allclose(trace.coupling_RNIJ, coupling_RBIJ, rtol=EXACT)

    weights_BJQ = np.random.default_rng(9).normal(size=(B, J, Q))
    found = gradients([poses_BIP, transform_TPJQ], weights_BJQ, xla=False, **rule)

    def objective(value):
        return float(np.sum(oracles.dynamic_routing(value, transform_TPJQ, 3, **rule)[0] * weights_BJQ))

    # a temperature of 1/4 multiplies third derivatives, and with them the error of the difference, by up to 4^3
    tolerance = DIFFERENCE * max(1.0, temperature**-3)
    expected = oracles.finite_difference(objective, poses_BIP)
    np.testing.assert_allclose(found[0], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_of_dynamic_against_differences(options: dict) -> None:
    *arguments, bias_JQ = example(options["transforms"], seed=1)
    arguments += [bias_JQ] if options["bias"] else []
    weights_BJQ = np.random.default_rng(2).normal(size=(B, J, Q))
    found = gradients(arguments, weights_BJQ, leaky=options["leaky"], xla=False)
    for place, gradient in enumerate(found):

        def objective(value, place=place):
            changed = [*arguments[:place], value, *arguments[place + 1 :]]
            poses_BJQ, _ = oracles.dynamic_routing(
                changed[0], changed[1], 3, leaky=options["leaky"], bias_JQ=changed[2] if options["bias"] else None
            )
            return float(np.sum(poses_BJQ * weights_BJQ))

        expected = oracles.finite_difference(objective, arguments[place])
        np.testing.assert_allclose(gradient, expected, rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.parametrize("xla", [False, True])
def test_stop_gradient_takes_the_last_couplings_as_given(xla: bool) -> None:
    arguments = example(2, seed=3)
    weights_BJQ = np.random.default_rng(4).normal(size=(B, J, Q))
    held_BIJ = oracles.dynamic_routing(*arguments[:2], 3, bias_JQ=arguments[2])[1][-1]
    stopped = gradients(arguments, weights_BJQ, stop_gradient=True, xla=xla)
    for place, gradient in enumerate(stopped):

        def objective(value, place=place):
            poses_BIP, transform_TPJQ, bias_JQ = [*arguments[:place], value, *arguments[place + 1 :]]
            poses_BJQ, _ = oracles.dynamic_routing(
                poses_BIP, transform_TPJQ, 3, bias_JQ=bias_JQ, last_coupling_BIJ=held_BIJ
            )
            return float(np.sum(poses_BJQ * weights_BJQ))

        expected = oracles.finite_difference(objective, arguments[place])
        np.testing.assert_allclose(gradient, expected, rtol=DIFFERENCE, atol=DIFFERENCE)
    through_all = gradients(arguments, weights_BJQ, xla=xla)
    assert np.max(np.abs(through_all[0] - stopped[0])) > 1e-3  # the option does something
    np.testing.assert_array_equal(route(*arguments, stop_gradient=True)[0], route(*arguments)[0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_uniform_is_the_first_iteration(options: dict) -> None:
    poses_BIP, transform_TPJQ, bias_JQ = example(options["transforms"])
    bias_JQ = bias_JQ if options["bias"] else None
    expected_BJQ, coupling_RBIJ = oracles.dynamic_routing(
        poses_BIP, transform_TPJQ, 1, leaky=options["leaky"], bias_JQ=bias_JQ
    )
    poses_BJQ, trace = route(
        poses_BIP, transform_TPJQ, bias_JQ, algorithm="uniform", leaky=options["leaky"], trace=True, records=B
    )
    np.testing.assert_allclose(poses_BJQ, expected_BJQ, rtol=EXACT)
    np.testing.assert_allclose(trace.coupling_RNIJ, coupling_RBIJ, rtol=EXACT)


def test_couplings_sum_to_one_over_parents_and_not_over_children() -> None:
    _, trace = route(*example()[:2], trace=True, records=B)
    coupling_RNIJ = trace.coupling_RNIJ.numpy()
    np.testing.assert_allclose(coupling_RNIJ.sum(axis=-1), 1.0, rtol=EXACT)
    assert np.all(np.abs(coupling_RNIJ.sum(axis=-2) - 1.0) > 0.1)
    assert np.ptp(coupling_RNIJ[-1]) > 0.1  # and they are no longer uniform


def test_leaky_couplings_sum_to_less_than_one() -> None:
    _, trace = route(*example()[:2], leaky=True, trace=True, records=B)
    sums_RNI = trace.coupling_RNIJ.numpy().sum(axis=-1)
    assert np.all(sums_RNI < 1.0)
    np.testing.assert_allclose(sums_RNI[0], J / (J + 1), rtol=EXACT)
    np.testing.assert_allclose(trace.unassigned_R, 1.0 - sums_RNI.mean(axis=(1, 2)), rtol=EXACT)


def test_trace_is_entropy_over_its_largest_value() -> None:
    for leaky in (False, True):
        _, trace = route(*example()[:2], leaky=leaky, trace=True, records=B)
        p = trace.coupling_RNIJ.numpy()
        if leaky:
            p = np.concatenate([p, 1.0 - p.sum(axis=-1, keepdims=True)], axis=-1)
        entropy_RNI = -(p * np.log(p)).sum(axis=-1)
        np.testing.assert_allclose(trace.entropy_R, entropy_RNI.mean((1, 2)) / math.log(J + leaky), rtol=EXACT)
        np.testing.assert_allclose(trace.effective_parents_R, np.exp(entropy_RNI).mean((1, 2)), rtol=EXACT)
        assert float(trace.entropy_R[0]) == pytest.approx(1.0, rel=EXACT)
        assert float(trace.effective_parents_R[0]) == pytest.approx(J + leaky, rel=EXACT)


def test_trace_holds_lengths_and_couplings_of_as_many_records_as_asked_for() -> None:
    poses_BIP, transform_TPJQ, _ = example()
    poses_BJQ, trace = route(poses_BIP, transform_TPJQ, trace=True, records=1)
    assert trace.coupling_RNIJ.shape == (3, 1, I, J)
    np.testing.assert_allclose(trace.children.activations_BN, np.linalg.norm(poses_BIP, axis=-1), rtol=EXACT)
    np.testing.assert_allclose(trace.parents.activations_BN, np.linalg.norm(poses_BJQ, axis=-1), rtol=EXACT)
    assert route(poses_BIP, transform_TPJQ, trace=True)[1].coupling_RNIJ.shape == (3, 0, I, J)
    assert route(poses_BIP, transform_TPJQ)[1] is None


@pytest.mark.parametrize("algorithm", routing.names())
@pytest.mark.parametrize("xla", [False, True])
def test_trace_leaves_poses_unchanged(algorithm: str, xla: bool) -> None:
    arguments = example()
    plain, _ = route(*arguments, algorithm=algorithm, xla=xla)
    traced, _ = route(*arguments, algorithm=algorithm, xla=xla, trace=True, records=2)
    if xla:  # another program, whose sums may be in another order
        np.testing.assert_allclose(traced, plain, rtol=1e-13)
    else:
        np.testing.assert_array_equal(traced, plain)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_order_of_children_does_not_matter(options: dict) -> None:
    poses_BIP, transform_IPJQ, bias_JQ = example()
    order = np.random.default_rng(5).permutation(I)
    extra = extras(RoutingConfig(**options), np.float64)
    plain, _ = route(poses_BIP, transform_IPJQ, bias_JQ, extra=extra, **options)
    permuted, _ = route(
        poses_BIP[:, order], transform_IPJQ[order], bias_JQ, extra=reordered(extra, I, order), **options
    )
    np.testing.assert_allclose(permuted, plain, rtol=EXACT)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_order_of_parents_is_kept(options: dict) -> None:
    poses_BIP, transform_IPJQ, bias_JQ = example()
    order = np.random.default_rng(6).permutation(J)
    extra = extras(RoutingConfig(**options), np.float64)
    plain, _ = route(poses_BIP, transform_IPJQ, bias_JQ, extra=extra, **options)
    permuted, _ = route(
        poses_BIP,
        transform_IPJQ[:, :, order],
        bias_JQ[order],
        extra=reordered(extra, J, order),
        **options,
    )
    np.testing.assert_allclose(permuted, plain.numpy()[:, order], rtol=EXACT)


def test_rotation_of_the_pose_space_leaves_lengths() -> None:
    poses_BIP, transform_IPJQ, _ = example()
    rotation_QQ, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(Q, Q)))
    plain, _ = route(poses_BIP, transform_IPJQ)
    rotated, _ = route(poses_BIP, transform_IPJQ @ rotation_QQ)
    np.testing.assert_allclose(lengths(rotated), lengths(plain), rtol=EXACT)
    np.testing.assert_allclose(rotated, plain @ rotation_QQ, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("options", [{}, {"leaky": True, "stop_gradient": True}], ids=str)
@pytest.mark.parametrize("transforms", [I, 2])
def test_xla_agrees(options: dict, transforms: int) -> None:
    arguments = example(transforms, dtype=np.float32)
    weights_BJQ = np.random.default_rng(8).normal(size=(B, J, Q)).astype(np.float32)
    np.testing.assert_allclose(
        route(*arguments, xla=True, **options)[0], route(*arguments, xla=False, **options)[0], rtol=SINGLE, atol=SINGLE
    )
    for compiled, plain in zip(
        gradients(arguments, weights_BJQ, xla=True, **options),
        gradients(arguments, weights_BJQ, xla=False, **options),
        strict=True,
    ):
        np.testing.assert_allclose(compiled, plain, rtol=SINGLE, atol=SINGLE)


FINITE = [
    (dtype, size)
    for dtype in (tf.float32, tf.bfloat16, tf.float16)
    for size in (0.0, 1e-30, 1e-3, 1e2, 1e18)
    if size <= float(dtype.max)
]


@pytest.mark.parametrize(("dtype", "size"), FINITE)
@pytest.mark.parametrize(
    ("options", "transforms"), [*((rule, I) for rule in RULES), (COSINE_STREAMED, I), (COSINE_STREAMED, 2)], ids=str
)
def test_finite_for_zero_tiny_huge_and_identical(dtype: tf.DType, size: float, options: dict, transforms: int) -> None:
    transform_TPJQ = example(transforms, dtype=np.float32)[1]
    identical_BIP = np.full((B, I, P), size, np.float32)
    tensors = [tf.cast(identical_BIP, dtype), tf.cast(transform_TPJQ, dtype)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        poses_BJQ, _ = route(*tensors, leaky=True, **options)
        total = tf.reduce_sum(lengths(poses_BJQ))
    assert poses_BJQ.dtype == tf.float32
    for value in [poses_BJQ, *tape.gradient(total, tensors)]:
        assert np.all(np.isfinite(tf.cast(value, tf.float32)))


def test_half_precision_rounds_the_votes_only() -> None:
    poses_BIP, transform_TPJQ, _ = example(dtype=np.float32)
    exact, _ = route(poses_BIP, transform_TPJQ)
    for dtype, unit in ((tf.bfloat16, 2.0**-8), (tf.float16, 2.0**-11)):
        rounded, _ = route(tf.cast(poses_BIP, dtype), tf.cast(transform_TPJQ, dtype))
        # poses, transform and votes rounded once each, agreement of a few votes of length 1 in the exponent
        np.testing.assert_allclose(rounded, exact, atol=20 * unit)


def test_every_algorithm_of_the_configuration_is_one_file() -> None:
    files = {path.stem for path in Path(routing.__file__).parent.glob("*.py")}
    assert set(routing.names()) <= files
    sizes = LayerSizes(I, I, J, P, Q)
    for name in routing.names():
        module = routing.get(name)
        assert callable(module.route)
        assert isinstance(module.ACTIVATED_BY_LENGTH, bool)
        assert "bias" not in module.weights(RoutingConfig(algorithm=name), sizes)
        assert module.weights(RoutingConfig(algorithm=name, bias=True), sizes)["bias"].shape == (J, Q)
        assert extra_weights.KNOWN.get(name, module.weights) is module.weights
    with pytest.raises(KeyError):
        routing.get("votes")
