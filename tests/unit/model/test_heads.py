"""Heads for many classes: transforms that are products, and lengths at the start.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, K rank.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model.capsules import CapsuleLayer, project
from trainer.model.initial import CHILD_SQUARE, parents_start
from trainer.model.routing import Capsules, LayerSizes
from trainer.model.squash import lengths

EXACT = 1e-9  # float64, sums of tens of terms in another order
B, I, T, J, P, Q, K = 2, 6, 3, 5, 4, 3, 2  # noqa: E741
USE_POSES_IN_VOTES_ONLY = ("dynamic", "uniform", "random", "inverted", "self_attention")


def layer(algorithm: str, rank: int, *, dtype: str = "float64", **changes) -> CapsuleLayer:
    sizes = {"parents": J, "pose": Q, "children": I, "transforms": T} | changes
    found = CapsuleLayer(config=RoutingConfig(algorithm=algorithm), rank=rank, seed=1, dtype=dtype, **sizes)
    found.build((None, None, P))
    return found


def children(rng: np.random.Generator, dtype=np.float64) -> Capsules:
    poses_BIP = tf.constant(rng.normal(size=(B, I, P)) * 0.6, dtype)
    return Capsules(poses_BIP, lengths(poses_BIP))


@pytest.mark.parametrize("algorithm", USE_POSES_IN_VOTES_ONLY)
def test_low_rank_is_the_transform_that_its_factors_make(algorithm: str) -> None:
    rng = np.random.default_rng(0)
    factored, expanded = layer(algorithm, K), layer(algorithm, 0)
    a_TPK, b_KJQ = rng.normal(size=(T, P, K)), rng.normal(size=(K, J, Q))
    factored.projection_TPK.assign(a_TPK)
    factored.transform_parts[0].assign(b_KJQ[None])
    expanded.transform_parts[0].assign(np.einsum("tpk,kjq->tpjq", a_TPK, b_KJQ))
    capsules, weights_BJQ = children(rng), rng.normal(size=(B, J, Q))

    def value_and_gradients(layer: CapsuleLayer, *weights: tf.Variable) -> tuple[Capsules, list[np.ndarray]]:
        watched = [capsules.poses_BNP, *(weight.value for weight in weights)]
        with tf.GradientTape() as tape:
            tape.watch(capsules.poses_BNP)
            parents, _ = layer(capsules)
            total = tf.reduce_sum(parents.poses_BNP * weights_BJQ) + tf.reduce_sum(parents.activations_BN**2)
        return parents, [gradient.numpy() for gradient in tape.gradient(total, watched)]

    parents, (poses, projection, transform) = value_and_gradients(
        factored, factored.projection_TPK, factored.transform_parts[0]
    )
    expected, (poses_expected, whole) = value_and_gradients(expanded, expanded.transform_parts[0])
    np.testing.assert_allclose(parents.poses_BNP, expected.poses_BNP, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(parents.activations_BN, expected.activations_BN, rtol=EXACT)
    np.testing.assert_allclose(poses, poses_expected, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(projection, np.einsum("tpjq,kjq->tpk", whole, b_KJQ), rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(transform[0], np.einsum("tpk,tpjq->kjq", a_TPK, whole), rtol=EXACT, atol=EXACT)


def test_projection_is_by_type() -> None:
    rng = np.random.default_rng(1)
    poses_BIP, projection_TPK = rng.normal(size=(B, I, P)), rng.normal(size=(T, P, K))
    found_BIK = project(tf.constant(poses_BIP), tf.constant(projection_TPK)).numpy()
    for n in range(B):
        for i in range(I):
            np.testing.assert_allclose(found_BIK[n, i], projection_TPK[i % T].T @ poses_BIP[n, i], rtol=EXACT)


def test_low_rank_has_few_parameters_and_a_trace_of_all_children() -> None:
    found = layer("dynamic", K)
    assert found.count_params() == T * P * K + K * J * Q
    _, trace = found(children(np.random.default_rng(2)), trace=True, coupling_records=B)
    assert trace.coupling_RNIJ.shape == (3, B, I, J)
    np.testing.assert_allclose(trace.coupling_RNIJ.numpy().sum(-1), 1.0, rtol=EXACT)


@pytest.mark.parametrize("initial_stddev", [0.1, None])
def test_votes_start_as_long_with_low_rank_as_without(initial_stddev: float | None) -> None:
    """Mean squares over 40 x 200 x 16 entries of B and 64 x 40 x 24 of A: each within 2 % of its expectation."""
    sizes = {"parents": 200, "pose": 16, "children": 128, "transforms": 64, "initial_stddev": initial_stddev}
    found, whole = layer("dynamic", 40, **sizes), layer("dynamic", 0, **sizes)
    votes = np.einsum("tpk,kjq->tpjq", found.projection_TPK.numpy(), found.transform_parts[0].numpy()[0])
    assert np.mean(votes**2) == pytest.approx(np.mean(whole.transform_parts[0].numpy() ** 2), rel=0.05)


@pytest.mark.parametrize(
    ("algorithm", "said"), [("dynamic", "streamed: "), ("em", "stored: em compares"), ("uniform", None)]
)
def test_a_layer_says_how_it_routes_where_there_is_something_to_say(algorithm: str, said: str | None) -> None:
    found = layer(algorithm, 0, parents=100, pose=16, children=128, transforms=128)
    text = found.implementation(512)
    assert text is None if said is None else text.startswith(said)


STARTS = [(96, 0, 16), (96, 0, 8), (12, 0, 16), (12, 32, 16), (96, 32, 16)]


def started(algorithm: str, parents: int, transforms: int, rank: int, pose: int) -> tuple[CapsuleLayer, Capsules]:
    """A layer and 96 children whose types are alike at all positions, with the squared length that is assumed."""
    sizes = {"parents": parents, "pose": pose, "children": 96, "transforms": transforms, "initial_stddev": None}
    poses_BTP = np.random.default_rng(3).normal(size=(8, transforms, P)).astype(np.float32)
    poses_BTP *= np.sqrt(CHILD_SQUARE) / np.linalg.norm(poses_BTP, axis=-1, keepdims=True)
    poses_BIP = tf.constant(np.tile(poses_BTP, (1, 96 // transforms, 1)))
    return layer(algorithm, rank, dtype="float32", **sizes), Capsules(poses_BIP, lengths(poses_BIP))


@pytest.mark.parametrize("parents", [10, 100, 1000])
@pytest.mark.parametrize(("transforms", "rank", "pose"), STARTS)
def test_parents_start_with_the_length_that_is_meant(parents: int, transforms: int, rank: int, pose: int) -> None:
    """Squashed lengths are nearly squares here. The mean square of J x Q normal numbers is uncertain by sqrt(2 / JQ),
    which is 16 % at J = 10, Q = 8; that of K shared ones by 25 % at K = 32."""
    found, capsules = started("uniform", parents, transforms, rank, pose)
    start = parents_start(LayerSizes(96, transforms, parents, P, pose))
    assert np.mean(found(capsules)[0].activations_BN) == pytest.approx(start**2 / (1 + start**2), rel=0.35)


def test_matrix_poses_start_with_the_length_that_is_meant() -> None:
    """Of 1,000 x 4 numbers, two of each row of W."""
    found = layer("uniform", 0, parents=1000, pose=4, children=96, transforms=12, rows=2, initial_stddev=None)
    poses_BTP = np.random.default_rng(3).normal(size=(8, 12, P))
    poses_BTP *= np.sqrt(CHILD_SQUARE) / np.linalg.norm(poses_BTP, axis=-1, keepdims=True)
    poses_BIP = tf.constant(np.tile(poses_BTP, (1, 8, 1)))
    start = parents_start(LayerSizes(96, 12, 1000, P, 4, 2))
    lengths_BJ = found(Capsules(poses_BIP, lengths(poses_BIP)))[0].activations_BN
    assert np.mean(lengths_BJ) == pytest.approx(start**2 / (1 + start**2), rel=0.1)


@pytest.mark.parametrize("parents", [10, 100, 1000])
@pytest.mark.parametrize(("transforms", "rank", "pose"), STARTS)
def test_no_parent_runs_away_at_the_start(parents: int, transforms: int, rank: int, pose: int) -> None:
    """With |s| = 1/3 at any size a thousand parents fail this: entropy 0.04 to 0.37, the longest 1.0."""
    found, capsules = started("dynamic", parents, transforms, rank, pose)
    routed, trace = found(capsules, trace=True)
    assert float(trace.entropy_R[-1]) > 0.999
    assert np.max(routed.activations_BN) < 0.5


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0])
def test_low_rank_is_finite_in_half_precision(dtype: str, size: float) -> None:
    found = layer("dynamic", K, dtype=dtype)
    poses_BIP = tf.fill([B, I, P], size)
    with tf.GradientTape() as tape:
        tape.watch(poses_BIP)
        parents, _ = found(Capsules(poses_BIP, lengths(poses_BIP)))
        total = tf.reduce_sum(parents.activations_BN)
    gradients = tape.gradient(total, [poses_BIP, *(weight.value for weight in found.trainable_variables)])
    assert parents.poses_BNP.dtype == tf.float32
    assert all(np.all(np.isfinite(value)) for value in [parents.poses_BNP, *gradients])
