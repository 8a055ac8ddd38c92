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
from tests.unit.model.test_routing import DIFFERENCE, EXACT, SINGLE, B, I, J, P, Q, example
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
    np.testing.assert_array_equal(trace.parent_activations_BJ, parents.activations_BN)
    np.testing.assert_array_equal(trace.child_activations_BI, given.arguments["activations"])


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
