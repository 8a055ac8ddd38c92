"""Convolutional capsule layers against loops over windows, and competition over all parents that a child can reach.

Axes: B batch, H W positions, T types, I children of a window, J parent types, P/Q child/parent pose size.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

import trainer.model.routing as routing
from tests.unit.model import oracles
from trainer.config import ModelConfig, RoutingConfig
from trainer.errors import ConfigError
from trainer.model import residual
from trainer.model.convolution import ConvolutionalCapsules
from trainer.model.costs import costs
from trainer.model.network import build
from trainer.model.routing import Capsules, choice
from trainer.model.routing.fan import (
    Fan,
    cut_windows,
    log_softmax_over_parents,
    sum_over_windows,
    windows_of_each_child,
)
from trainer.model.routing.trace import observe_competition
from trainer.model.shapes import shapes
from trainer.model.squash import lengths, squash

EXACT = 1e-9  # float64, through three softmaxes and squashes with their epsilon of 1e-12
B, T, J = 2, 2, 3
FANS = [
    Fan.create(side, kernel, stride, padding)
    for side, kernel, stride in ((4, 3, 1), (5, 3, 2), (6, 3, 2), (5, 2, 3), (3, 1, 1), (3, 3, 1), (7, 4, 2))
    for padding in ("valid", "same")
]


def windows(fan: Fan) -> list[list[tuple[int, int] | None]]:
    """By window the positions that it sees, row by row; None where there is none."""
    found = []
    for top, left in itertools.product(range(fan.windows), repeat=2):
        seen = []
        for row, column in itertools.product(range(fan.kernel), repeat=2):
            h, w = top * fan.stride + row - fan.before, left * fan.stride + column - fan.before
            seen.append((h, w) if 0 <= h < fan.side and 0 <= w < fan.side else None)
        found.append(seen)
    return found


def softmax_over_parents(logits_IBJ: tf.Tensor, fan: Fan, leaky: bool = False) -> tf.Tensor:
    return tf.exp(log_softmax_over_parents(logits_IBJ, fan, leaky))


def example_logits(fan: Fan, size: float = 1.0) -> np.ndarray:
    shape = (fan.kernel**2 * T, B * fan.windows**2, J)
    return np.random.default_rng(0).normal(size=shape) * size


def by_child(fan: Fan, values_IBX: np.ndarray) -> dict[tuple[int, int, int, int], list[np.ndarray]]:
    """What each (record, row, column, type) has in its windows."""
    found: dict[tuple[int, int, int, int], list[np.ndarray]] = {}
    for n, (number, seen) in itertools.product(range(B), enumerate(windows(fan))):
        for k, position in enumerate(seen):
            for t in range(T):
                if position is not None:
                    value = values_IBX[k * T + t, n * len(windows(fan)) + number]
                    found.setdefault((n, *position, t), []).append(value)
    return found


@pytest.mark.parametrize("fan", FANS, ids=str)
def test_windows_are_those_of_a_convolution(fan: Fan) -> None:
    grid_BHWX = np.random.default_rng(1).normal(size=(B, fan.side, fan.side, 3))
    cut = cut_windows(tf.constant(grid_BHWX), fan).numpy()
    expected = [
        [np.zeros(3) if at is None else grid_BHWX[n, *at] for at in seen] for n in range(B) for seen in windows(fan)
    ]
    np.testing.assert_array_equal(cut, expected)
    padding = "same" if fan.before + fan.after else "valid"
    kernel = np.random.default_rng(2).normal(size=(fan.kernel, fan.kernel, 3, 4))
    convolved = tf.nn.conv2d(grid_BHWX, kernel, fan.stride, padding.upper()).numpy()
    np.testing.assert_allclose(
        cut.reshape(B, fan.windows, fan.windows, -1) @ kernel.reshape(-1, 4), convolved, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("fan", "size", "leaky", "jit"),
    [
        *((fan, *how, False) for fan in FANS for how in ((1.0, False), (1e3, False), (1.0, True), (1e3, True))),
        *((fan, 1e3, True, True) for fan in FANS[:4]),  # a window at each position, and fewer; each is compiled anew
    ],
    ids=str,
)
def test_couplings_sum_to_one_over_all_parents_that_a_child_can_reach(
    fan: Fan, size: float, leaky: bool, jit: bool
) -> None:
    logits_IBJ = example_logits(fan, size)
    compiled = tf.function(softmax_over_parents, jit_compile=jit)
    coupling_IBJ = compiled(tf.constant(logits_IBJ), fan, leaky).numpy()
    logits, couplings = by_child(fan, logits_IBJ), by_child(fan, coupling_IBJ)
    assert {len(found) for found in logits.values()} <= set(windows_of_each_child(fan))
    for child, found in couplings.items():
        expected = np.concatenate([*logits[child], [0.0] if leaky else []])  # 'none of the above' has the logit 0
        expected = np.exp(expected - expected.max())
        expected = (expected / expected.sum())[: -1 if leaky else None]
        # logits of 1e3 are known to 1e-13, and so are their exponentials
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-11, atol=1e-300)
        assert leaky or float(np.sum(found)) == pytest.approx(1.0, rel=1e-11)


@pytest.mark.parametrize("fan", FANS, ids=str)
def test_gradient_of_couplings_against_differences(fan: Fan) -> None:
    logits_IBJ = example_logits(fan)
    weights_IBJ = np.random.default_rng(3).normal(size=logits_IBJ.shape)
    logits = tf.constant(logits_IBJ)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(softmax_over_parents(logits, fan) * weights_IBJ)
    found = tape.gradient(total, logits).numpy()
    for index in list(np.ndindex(*logits_IBJ.shape))[:: max(1, logits_IBJ.size // 10)]:
        above, below = logits_IBJ.copy(), logits_IBJ.copy()
        above[index] += 1e-5
        below[index] -= 1e-5
        difference = [float(tf.reduce_sum(softmax_over_parents(x, fan) * weights_IBJ)) for x in (above, below)]
        # step^2 of the formula, 1e-16 / step of rounding in a sum of hundreds of terms
        assert found[index] == pytest.approx((difference[0] - difference[1]) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("fan", FANS, ids=str)
def test_sums_over_windows_and_entropy(fan: Fan, leaky: bool) -> None:
    coupling_IBJ = softmax_over_parents(tf.constant(example_logits(fan)), fan, leaky)
    couplings = by_child(fan, coupling_IBJ.numpy())
    sums = sum_over_windows(tf.reduce_sum(coupling_IBJ, axis=-1), fan).numpy().reshape(B, fan.side, fan.side, T)
    for child in np.ndindex(*sums.shape):
        assert sums[child] == pytest.approx(np.sum(couplings.get(child, [0.0])), rel=1e-12)
    outcomes = [np.concatenate([*found, [1.0 - np.sum(found)] if leaky else []]) for found in couplings.values()]
    entropies = [-float(p @ np.log(p)) for p in outcomes]
    shares = [entropy / math.log(len(p)) for entropy, p in zip(entropies, outcomes, strict=True)]
    seen = observe_competition(coupling_IBJ, leaky, 3, fan)
    assert float(seen.entropy) == pytest.approx(np.mean(shares), rel=EXACT)
    assert float(seen.effective_parents) == pytest.approx(np.mean(np.exp(entropies)), rel=EXACT)
    left = np.mean([p[-1] for p in outcomes]) if leaky else 0.0
    assert float(seen.unassigned) == pytest.approx(left, rel=EXACT)
    assert seen.coupling_INJ.shape[1] == min(3, coupling_IBJ.shape[1])


def layer(fan: Fan, pose: int = 4, *, by: str = "float64", **options) -> ConvolutionalCapsules:
    made = ConvolutionalCapsules(
        J,
        pose,
        RoutingConfig(**options),
        child_types=T,
        fan=fan,
        residual=False,
        seed=0,
        dtype=by,
        name="layer_0",
    )
    made.build((None, None, 2))
    made.transform_parts[0].assign(made.transform_parts[0] * 2.0)  # so that routing decides
    return made


def grid_capsules(fan: Fan, pose: int = 2, types: int = T) -> Capsules:
    poses_BNP = squash(tf.constant(np.random.default_rng(4).normal(size=(B, fan.side**2 * types, pose))))
    return Capsules(poses_BNP, lengths(poses_BNP))


@pytest.mark.parametrize("implementation", ["stored", "streamed"])
@pytest.mark.parametrize("algorithm", ["dynamic", "inverted", "self_routing", "random", "uniform"])
def test_what_lies_beside_the_grid_is_not_seen(
    algorithm: str, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its couplings are even, and would hide how sharp the others are."""
    ragged = choice.Choice(implementation, 5, 1, "all", "for the test")
    monkeypatch.setattr(choice, "choose", lambda *_, gpu: ragged)
    fan = Fan.create(4, 3, 1, "same")
    made = layer(fan, algorithm=algorithm, implementation=implementation, leaky=True, xla=False)
    _, trace = made(grid_capsules(fan), trace=True, coupling_records=B)
    coupling_R = trace.coupling_RNIJ.numpy().reshape(-1, B, 4, 4, 3, 3, T, J)
    for r in range(len(coupling_R)):
        entropies, left = [], []
        for n, row, column, down, right, t in np.ndindex(*coupling_R.shape[1:-1]):
            at = row + down - fan.before, column + right - fan.before
            if 0 <= min(at) <= max(at) < fan.side:
                shares = coupling_R[r, n, row, column, down, right, t]
                left.append(1.0 - shares.sum())
                outcomes = np.append(shares, left[-1])
                entropies.append(-float(outcomes @ np.log(outcomes)))
        assert float(trace.entropy_R[r]) == pytest.approx(np.mean(entropies) / math.log(J + 1), rel=EXACT)
        assert float(trace.effective_parents_R[r]) == pytest.approx(np.mean(np.exp(entropies)), rel=EXACT)
        assert float(trace.unassigned_R[r]) == pytest.approx(np.mean(left), rel=EXACT)


def test_the_implementation_is_told_of_the_votes_of_all_windows() -> None:
    fan = Fan(10, 3, 1)
    votes = 4 * 100 * fan.windows**2 * (9 * T) * J * 4  # of 100 records, in poses of 4 float32
    text = layer(fan).implementation(100)
    assert text is not None
    assert f"all votes are {votes / 1e6:.3g} MB" in text or f"votes would be {votes / 1e6:.3g} MB" in text


@pytest.mark.parametrize("fan", [fan for fan in FANS if fan.windows > 1], ids=str)
def test_dynamic_routing_in_each_window(fan: Fan) -> None:
    made, children = layer(fan), grid_capsules(fan)
    parents, trace = made(children, trace=True, coupling_records=B)
    grid = children.poses_BNP.numpy().reshape(B, fan.side, fan.side, T, 2)
    poses = parents.poses_BNP.numpy().reshape(B, fan.windows**2, J, 4)
    couplings = trace.coupling_RNIJ.numpy().reshape(3, B, fan.windows**2, fan.kernel**2 * T, J)
    for number, seen in enumerate(windows(fan)):
        inside_BIP = np.stack([np.zeros((B, T, 2)) if at is None else grid[:, *at] for at in seen], axis=1)
        expected_BJQ, coupling_RBIJ = oracles.dynamic_routing(
            inside_BIP.reshape(B, -1, 2), made.transform_parts[0].numpy(), 3
        )
        np.testing.assert_allclose(poses[:, number], expected_BJQ, rtol=EXACT, atol=EXACT)
        np.testing.assert_allclose(couplings[:, :, number], coupling_RBIJ, rtol=EXACT)
    np.testing.assert_array_equal(trace.children.activations_BN, children.activations_BN)
    np.testing.assert_array_equal(trace.parents.activations_BN, parents.activations_BN)
    plain, none = made(children)
    np.testing.assert_allclose(plain.poses_BNP, parents.poses_BNP, rtol=EXACT)
    assert none is None


def test_residual_of_length_activated_capsules() -> None:
    fan = Fan.create(3, 3, 1, "same")
    routed = grid_capsules(fan)
    nothing = Capsules(tf.zeros_like(routed.poses_BNP), tf.zeros_like(routed.activations_BN))
    same = residual.add(routed, nothing, by_length=True)
    # the identity, but for the two epsilons under roots, 1e-6 of lengths that lie between 0.01 and 0.99
    np.testing.assert_allclose(same.poses_BNP, routed.poses_BNP, rtol=1e-4)
    other = Capsules(routed.poses_BNP[:, ::-1], routed.activations_BN[:, ::-1])
    both = residual.add(routed, other, by_length=True)

    def preactivation(v: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(v, axis=-1, keepdims=True)
        return v / length * np.sqrt(length / (1.0 - length))

    s = preactivation(routed.poses_BNP.numpy()) + preactivation(other.poses_BNP.numpy())
    square = np.sum(s * s, axis=-1, keepdims=True)
    np.testing.assert_allclose(both.poses_BNP, square / (1.0 + square) * s / np.sqrt(square), rtol=1e-4)
    assert np.all(both.activations_BN < 1.0)
    np.testing.assert_array_equal(both.activations_BN, lengths(both.poses_BNP))


def test_residual_of_capsules_with_activations_of_their_own() -> None:
    u, v = np.random.default_rng(5).normal(size=(2, B, 6, 3))
    a, b = np.random.default_rng(6).random((2, B, 6))
    both = residual.add(
        Capsules(tf.constant(u), tf.constant(a)), Capsules(tf.constant(v), tf.constant(b)), by_length=False
    )
    np.testing.assert_array_equal(both.poses_BNP, u + v)
    np.testing.assert_array_equal(both.activations_BN, (a + b) / 2)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1.0])
@pytest.mark.parametrize("other", [0.0, 1e-30, 0.5, 1.0])
def test_residual_is_finite(size: float, other: float) -> None:
    tensors = [tf.constant([[[size, 0.0]]]), tf.constant([[[0.0, other]]])]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        capsules = [Capsules(t, lengths(t)) for t in tensors]
        total = tf.reduce_sum(residual.add(*capsules, by_length=True).poses_BNP)
    for value in [total, *tape.gradient(total, tensors)]:
        assert np.all(np.isfinite(value))


SMALL = {
    "image_size": 10,
    "classes": 3,
    "stem": {"channels": [8], "kernel": 3, "strides": [2]},
    "primary": {"types": 2, "pose": 4, "kernel": 1, "stride": 1},
    "head": {"pose": 4},
    "decoder": {"hidden": []},
}


def stacked(depth: int, **changes) -> ModelConfig:
    layers = {
        "types": [2] * depth,
        "poses": [4] * depth,
        "kernels": [3, 1] * (depth // 2) + [3] * (depth % 2),
        "strides": [1] * depth,
        "padding": "same",
    }
    return ModelConfig.model_validate(SMALL | {"layers": layers | changes.pop("layers", {})} | changes)


@pytest.mark.parametrize(
    ("algorithm", "depth", "residual"),
    [
        *((name, depth, residual) for name in routing.names() for depth, residual in ((1, False), (16, True))),
        ("dynamic", 16, False),
        ("em", 16, False),
    ],
)
def test_trains_a_step_at_any_depth(algorithm: str, residual: bool, depth: int) -> None:
    config = stacked(depth, layers={"residual": residual}, routing={"algorithm": algorithm, "xla": False})
    net = build(config, precision="float64")
    images_BHWC = tf.constant(np.random.default_rng(7).random((B, 10, 10, 1)))

    def gradients() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(net(images_BHWC).class_scores_BJ - [[1.0, 0.0, 0.0]]))
        variables = [variable.value for variable in net.trainable_variables]
        unconnected = tf.UnconnectedGradients.ZERO  # poses may have no part in the scores
        return loss, tape.gradient(loss, variables, unconnected_gradients=unconnected)

    if depth == 1:  # in a graph, as in training; to trace sixteen layers takes longer than to compute them
        gradients = tf.function(gradients)
    before, found = gradients()
    square = float(tf.linalg.global_norm(found)) ** 2
    assert np.isfinite(square)
    assert square > 0.0
    for variable, gradient in zip(net.trainable_variables, found, strict=True):
        variable.assign_sub(1e-8 / square * gradient)
    # what the gradient promises; sixteen layers of softmaxes bend within steps of that size
    assert float(before - gradients()[0]) == pytest.approx(1e-8, rel=0.1)


def test_capsules_live_at_any_depth_from_the_start() -> None:
    net = build(stacked(16))
    traces = net(np.random.default_rng(8).random((B, 10, 10, 1)).astype(np.float32), trace=True).traces
    means = [float(tf.reduce_mean(traces[f"layer_{index}"].parents.activations_BN)) for index in range(2, 16)]
    assert min(means) > 0.2
    assert max(means) < 0.95


def test_every_layer_has_its_trace_and_its_name() -> None:
    net = build(stacked(2))
    images_BHWC = np.zeros((B, 10, 10, 1), np.float32)
    traces = net(images_BHWC, trace=True, coupling_records=1).traces
    assert list(traces) == ["layer_0", "layer_1", "class_capsules"]
    assert traces["layer_0"].coupling_RNIJ.shape == (3, 1, 16 * 9 * 2, 2)
    assert traces["layer_1"].coupling_RNIJ.shape == (3, 1, 16 * 1 * 2, 2)
    assert traces["layer_0"].parents.activations_BN.shape == (B, 16 * 2)
    assert net(images_BHWC).traces == {}
    paths = [variable.path for variable in net.variables]
    assert "capsnet/layer_1/transform" in paths
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("bias", [False, True])
def test_sizes_are_those_of_the_network(padding: str, bias: bool) -> None:
    layers = {"types": [3, 2, 2], "poses": [5, 4, 4], "kernels": [2, 1, 1], "strides": [2, 1, 1], "padding": padding}
    config = stacked(0, layers=layers | {"residual": True}, routing={"bias": bias}, head={"transform": "shared"})
    sizes, net = shapes(config), build(config)
    assert sizes.parameters == net.count_params()
    assert sizes.layers_parameters == sum(made.count_params() for made in net.capsule_layers)
    assert [found.residual for found in sizes.layers] == [made.residual for made in net.capsule_layers]
    assert [found.residual for found in sizes.layers] == [False, False, True]
    capsules = net.primary(net.stem(np.zeros((B, 10, 10, 1), np.float32)))
    for found, made in zip(sizes.layers, net.capsule_layers, strict=True):
        assert made.fan.windows == found.side
        capsules, _ = made(capsules)
        assert capsules.poses_BNP.shape == (B, found.side**2 * found.sizes.parents, found.sizes.pose)
    assert capsules.poses_BNP.shape[1:] == (sizes.children, sizes.child_pose)


def test_multiply_adds_by_hand() -> None:
    layers = {"types": [3, 2], "poses": [5, 4], "kernels": [3, 1], "strides": [1, 1]}
    found = costs(stacked(0, layers=layers | {"padding": "valid"}))
    # 2 x 2 windows of 3 x 3 x 2 children, then 2 x 2 of 3; each vote is summed three times and compared twice
    assert found.layers.multiply_adds == 4 * (18 * 3 * 5) * (4 + 5) + 4 * (3 * 2 * 4) * (5 + 5)
    assert found.head.multiply_adds == (4 * 2) * (3 * 4) * (4 + 5)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"types": [2], "poses": [4], "kernels": [5], "strides": [1]}, "model.layers, layer 0: the grid is 4x4"),
        ({"types": [2], "poses": [8], "kernels": [1], "strides": [1], "residual": True}, "model.layers.residual: no"),
        ({"residual": True}, "model.layers.residual: no"),
    ],
)
def test_sizes_that_do_not_work_are_one_line(layers: dict, says: str) -> None:
    config = ModelConfig.model_validate(SMALL | {"layers": layers})
    for attempt in (shapes, build):
        with pytest.raises(ConfigError, match=says) as error:
            attempt(config)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"types": [2], "poses": [4], "kernels": [1]}, "strides has 0 values and types 1"),
        ({"types": [2], "poses": [4], "kernels": [0], "strides": [1]}, "kernels must be at least 1"),
    ],
)
def test_one_value_for_each_layer(layers: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelConfig.model_validate(SMALL | {"layers": layers})
