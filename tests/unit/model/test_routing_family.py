"""Routing algorithms beside dynamic routing, each against loops written from its paper.

What holds for every algorithm is in test_routing.py.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import trainer.model.routing as routing
from tests.unit.model import oracles, oracles_family
from tests.unit.model.test_routing import DIFFERENCE, EXACT, FINITE, SINGLE, B, I, J, P, Q, example
from trainer.config import ModelConfig, RoutingConfig
from trainer.model.network import build
from trainer.model.routing import Capsules, LayerSizes, Transform


class Case(NamedTuple):
    """An algorithm with its arguments as float64 arrays by name, and its oracle of the same arguments."""

    config: RoutingConfig
    arguments: dict[str, np.ndarray]
    oracle: Callable[..., oracles_family.Routed]


def case(algorithm: str, transforms: int = I, seed: int = 0, **options) -> Case:
    config = RoutingConfig(algorithm=algorithm, **options)
    poses_BIP, transform_TPJQ, _ = example(transforms, seed)
    rng = np.random.default_rng(seed + 100)
    specs = routing.get(algorithm).weights(config, LayerSizes(I, transforms, J, P, Q))
    arguments = {"poses": poses_BIP, "activations": rng.uniform(0.1, 1.0, (B, I)), "transform": transform_TPJQ}
    arguments |= {name: spec.initial + rng.normal(size=spec.shape) * 0.5 for name, spec in specs.items()}

    def oracle(a: dict[str, np.ndarray], **more) -> oracles_family.Routed:
        more |= {"leaky": config.leaky, "bias_JQ": a.get("bias")}
        return ORACLES[algorithm](a, config, more)

    return Case(config, arguments, oracle)


ORACLES = {
    "random": lambda a, config, more: oracles_family.random_couplings(
        a["poses"], a["transform"], a["routing_logits"], **more
    ),
    "inverted": lambda a, config, more: oracles_family.inverted(
        *(a[name] for name in ("poses", "transform", "gain", "shift", "readout", "readout_bias")),
        config.iterations,
        **more,
    ),
    "self_routing": lambda a, config, more: oracles_family.self_routing(
        a["poses"], a["activations"], a["transform"], a["route"], **more
    ),
    "self_attention": lambda a, config, more: oracles_family.self_attention(
        a["poses"], a["transform"], a["prior"], **more
    ),
}


def routed(case: Case, arguments: dict[str, tf.Tensor], *, trace: bool = False, records: int = 0):
    extra = dict(arguments)
    children = Capsules(extra.pop("poses"), extra.pop("activations"))
    transform = Transform((extra.pop("transform"),))
    return routing.get(case.config.algorithm).route(
        children, transform, extra, case.config, trace=trace, coupling_records=records
    )


def tensors(arguments: dict[str, np.ndarray], dtype=tf.float64) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value, dtype) for name, value in arguments.items()}


def gradients(case: Case, arguments: dict[str, tf.Tensor], weights: tuple[np.ndarray, np.ndarray]):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        parents, _ = routed(case, arguments)
        total = tf.reduce_sum(parents.poses_BNP * weights[0]) + tf.reduce_sum(parents.activations_BN * weights[1])
    return tape.gradient(total, arguments, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def draw_weights(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, J, Q)), rng.normal(size=(B, J))


ALGORITHMS = tuple(ORACLES)
OPTIONS = [{}, {"leaky": True, "bias": True}]


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("transforms", [I, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_is_its_paper(algorithm: str, options: dict, transforms: int, xla: bool) -> None:
    given = case(algorithm, transforms, xla=xla, **options)
    poses_BJQ, activations_BJ, coupling_RBIJ = given.oracle(given.arguments)
    parents, trace = routed(given, tensors(given.arguments), trace=True, records=B)
    np.testing.assert_allclose(parents.poses_BNP, poses_BJQ, rtol=EXACT)
    np.testing.assert_allclose(parents.activations_BN, activations_BJ, rtol=EXACT)
    np.testing.assert_allclose(trace.coupling_RNIJ, coupling_RBIJ, rtol=EXACT)
    np.testing.assert_array_equal(trace.parents.activations_BN, parents.activations_BN)
    np.testing.assert_array_equal(trace.children.activations_BN, given.arguments["activations"])


@pytest.mark.parametrize("transforms", [I, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_against_differences(algorithm: str, options: dict, transforms: int) -> None:
    given = case(algorithm, transforms, seed=1, xla=False, **options)
    weights = draw_weights(2)
    found = gradients(given, tensors(given.arguments), weights)
    for name, value in given.arguments.items():

        def objective(changed, name=name):
            poses_BJQ, activations_BJ, _ = given.oracle(given.arguments | {name: changed})
            return float(np.sum(poses_BJQ * weights[0]) + np.sum(activations_BJ * weights[1]))

        expected = oracles.finite_difference(objective, value)
        np.testing.assert_allclose(found[name], expected, rtol=DIFFERENCE, atol=DIFFERENCE, err_msg=name)


@pytest.mark.parametrize("transforms", [I, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_xla_agrees_in_outputs_and_gradients(algorithm: str, transforms: int) -> None:
    plain, compiled = (case(algorithm, transforms, seed=3, xla=xla) for xla in (False, True))
    arguments = tensors(plain.arguments, tf.float32)
    weights = tuple(value.astype(np.float32) for value in draw_weights(4))
    for ours, theirs in zip(routed(compiled, arguments)[0], routed(plain, arguments)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=SINGLE, atol=SINGLE)
    ours, theirs = gradients(compiled, arguments, weights), gradients(plain, arguments, weights)
    for name in arguments:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=SINGLE, atol=SINGLE, err_msg=name)


@pytest.mark.parametrize("algorithm", ["random", "inverted", "self_routing"])
def test_couplings_sum_to_one_over_parents_and_not_over_children(algorithm: str) -> None:
    given = case(algorithm)
    coupling_RNIJ = routed(given, tensors(given.arguments), trace=True, records=B)[1].coupling_RNIJ.numpy()
    np.testing.assert_allclose(coupling_RNIJ.sum(axis=-1), 1.0, rtol=EXACT)
    assert np.all(np.max(np.abs(coupling_RNIJ.sum(axis=-2) - 1.0), axis=-1) > 0.1)
    assert np.ptp(coupling_RNIJ[-1]) > 0.1


def test_self_attention_adds_its_prior_after_the_softmax() -> None:
    given = case("self_attention")
    trace = routed(given, tensors(given.arguments), trace=True, records=B)[1]
    sums_RNI = trace.coupling_RNIJ.numpy().sum(axis=-1)
    np.testing.assert_allclose(sums_RNI, np.broadcast_to(1.0 + given.arguments["prior"].sum(-1), (1, B, I)), rtol=EXACT)
    assert 0.0 < float(trace.entropy_R[0]) < 1.0  # of the softmax, which is a distribution


def test_shares_of_self_routing_sum_to_one_and_to_less_with_none_of_the_above() -> None:
    given, leaky = case("self_routing"), case("self_routing", leaky=True)
    activations_BJ = routed(given, tensors(given.arguments))[0].activations_BN.numpy()
    np.testing.assert_allclose(activations_BJ.sum(-1), 1.0, rtol=EXACT)
    assert np.all(routed(leaky, tensors(leaky.arguments))[0].activations_BN.numpy().sum(-1) < 1.0)


@pytest.mark.parametrize("xla", [False, True])
def test_stop_gradient_of_inverted_takes_the_last_couplings_as_given(xla: bool) -> None:
    given = case("inverted", 2, seed=3, stop_gradient=True, xla=xla)
    weights = draw_weights(4)
    held_BIJ = given.oracle(given.arguments)[2][-1]
    stopped = gradients(given, tensors(given.arguments), weights)
    for name, value in given.arguments.items():

        def objective(changed, name=name):
            arguments = given.arguments | {name: changed}
            poses_BJQ, activations_BJ, _ = given.oracle(arguments, last_coupling_BIJ=held_BIJ)
            return float(np.sum(poses_BJQ * weights[0]) + np.sum(activations_BJ * weights[1]))

        expected = oracles.finite_difference(objective, value)
        np.testing.assert_allclose(stopped[name], expected, rtol=DIFFERENCE, atol=DIFFERENCE, err_msg=name)
    through_all = case("inverted", 2, seed=3, xla=xla)
    found = gradients(through_all, tensors(through_all.arguments), weights)
    assert np.max(np.abs(found["poses"] - stopped["poses"])) > 1e-3  # the option does something


@pytest.mark.parametrize(("dtype", "size"), FINITE)
@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_finite_for_zero_tiny_huge_and_identical(algorithm: str, leaky: bool, dtype: tf.DType, size: float) -> None:
    given = case(algorithm, leaky=leaky, bias=True)
    arguments = tensors(given.arguments, tf.float32)
    arguments["poses"] = tf.cast(tf.fill([B, I, P], size), dtype)
    arguments["activations"] = tf.fill([B, I], size)
    arguments["transform"] = tf.cast(arguments["transform"], dtype)
    parents, _ = routed(given, arguments)
    found = gradients(given, arguments, (np.ones((B, J, Q), np.float32), np.ones((B, J), np.float32)))
    assert parents.poses_BNP.dtype == parents.activations_BN.dtype == tf.float32
    for name, value in {"poses of parents": parents[0], "activations of parents": parents[1], **found}.items():
        assert np.all(np.isfinite(tf.cast(value, tf.float32))), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_half_precision_rounds_the_products_only(algorithm: str) -> None:
    given = case(algorithm)
    arguments = tensors(given.arguments, tf.float32)
    exact, _ = routed(given, arguments)
    for dtype, unit in ((tf.bfloat16, 2.0**-8), (tf.float16, 2.0**-11)):
        halves = {name: tf.cast(arguments[name], dtype) for name in ("poses", "transform")}
        rounded, _ = routed(given, arguments | halves)
        # poses, transform and votes rounded once each, seen through exponents of a few and normalisation
        for ours, theirs in zip(rounded, exact, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=20 * unit)


def small(**routing_options) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "image_size": 12,
            "classes": 3,
            "stem": {"channels": [8], "kernel": 3, "strides": [2]},
            "primary": {"types": 2, "pose": 4, "kernel": 3, "stride": 1},
            "head": {"pose": 4},
            "decoder": {"hidden": [5]},
            "routing": routing_options,
        }
    )


def test_random_couplings_are_a_function_of_the_seed_and_nothing_learns_them() -> None:
    images_BHWC = np.random.default_rng(0).random((2, 12, 12, 1)).astype(np.float32)

    def couplings(net):
        return net(images_BHWC, trace=True, coupling_records=2).traces["class_capsules"].coupling_RNIJ.numpy()

    net = build(small(algorithm="random"), seed=1)
    first = couplings(net)
    np.testing.assert_array_equal(first, couplings(build(small(algorithm="random"), seed=1)))
    assert np.max(np.abs(first - couplings(build(small(algorithm="random"), seed=2)))) > 0.1
    np.testing.assert_array_equal(first[:, 0], first[:, 1])
    assert np.ptp(first) > 0.3
    uniform = build(small(algorithm="uniform"), seed=1)
    assert [v.path for v in net.variables] == [v.path for v in uniform.variables]
