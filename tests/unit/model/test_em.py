"""EM routing against loops written from its paper, in full and in convolutional layers; matrices, coordinates.

What holds for every algorithm is in test_routing.py.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations, K offsets of a window.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.model import oracles, oracles_em
from tests.unit.model.test_convolution import FANS, windows
from tests.unit.model.test_routing import DIFFERENCE, EXACT, B, I, J, P, Q, example
from trainer import held
from trainer.config import ModelConfig, RoutingConfig
from trainer.model.capsules import CapsuleLayer, PrimaryCapsules
from trainer.model.convolution import ConvolutionalCapsules
from trainer.model.network import build
from trainer.model.routing import Capsules, LayerSizes, Transform, em
from trainer.model.routing.choice import choose
from trainer.model.routing.fan import Fan
from trainer.model.shapes import shapes
from trainer.model.transforms import of_matrices, onto_coordinates, with_coordinates

T = 2
NAMES = ("poses", "activations", "transform", "beta_activation", "beta_cost", "bias")


def arguments(transforms: int = I, seed: int = 0) -> dict[str, np.ndarray]:
    poses_BIP, transform_TPJQ, bias_JQ = example(transforms, seed)
    rng = np.random.default_rng(seed + 100)
    values = (
        poses_BIP,
        rng.uniform(0.05, 1.0, (B, I)),
        transform_TPJQ,
        rng.normal(size=J),
        rng.normal(size=J),
        bias_JQ,
    )
    return dict(zip(NAMES, values, strict=True))


def config_of(**options) -> RoutingConfig:
    return RoutingConfig.model_validate(
        {"algorithm": "em", "em": {"inverse_temperature": 2.0, "inverse_temperature_decay": 0.6}} | options
    )


def routed(given: dict, config: RoutingConfig, *, trace: bool = False, dtype=tf.float64):
    tensors = {name: tf.cast(value, dtype) for name, value in given.items()}
    return em.route(
        Capsules(tensors["poses"], tf.cast(tensors["activations"], tf.float64 if dtype == tf.float64 else tf.float32)),
        Transform((tensors["transform"],)),
        {name: tensors[name] for name in NAMES[3:] if name != "bias" or config.bias},
        config,
        trace=trace,
        coupling_records=B,
    )


def expected(given: dict, config: RoutingConfig, **more):
    return oracles_em.full(
        *(given[name] for name in NAMES[:5]),
        config.iterations,
        inverse_temperature=config.em.inverse_temperature,
        decay=config.em.inverse_temperature_decay,
        leaky=config.leaky,
        bias_JQ=given["bias"] if config.bias else None,
        **more,
    )


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("transforms", [I, 2])
@pytest.mark.parametrize("options", [{}, {"leaky": True, "bias": True}], ids=str)
def test_em_is_procedure_1(options: dict, transforms: int, iterations: int, xla: bool) -> None:
    given, config = arguments(transforms), config_of(iterations=iterations, xla=xla, **options)
    poses_BJQ, activations_BJ, coupling_RBIJ = expected(given, config)
    parents, trace = routed(given, config, trace=True)
    np.testing.assert_allclose(parents.poses_BNP, poses_BJQ, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(parents.activations_BN, activations_BJ, rtol=EXACT)
    # an assignment of 1e-9 has lost as many digits of its exponent as it is small
    np.testing.assert_allclose(trace.coupling_RNIJ, coupling_RBIJ, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(trace.coupling_RNIJ[0], 1.0 / (J + config.leaky), rtol=EXACT)
    assert iterations == 1 or np.ptp(trace.coupling_RNIJ[-1]) > 0.5  # routing decides
    if not config.leaky:
        np.testing.assert_allclose(tf.reduce_sum(trace.coupling_RNIJ, axis=-1), 1.0, rtol=EXACT)


@pytest.mark.parametrize("transforms", [I, 2])
@pytest.mark.parametrize("options", [{}, {"leaky": True, "bias": True}, {"stop_gradient": True}], ids=str)
def test_iterations_that_are_made_again_are_the_same(options: dict, transforms: int) -> None:
    tensors = {name: tf.constant(value) for name, value in arguments(transforms, seed=1).items()}

    def differentiated(memory_bytes: str) -> list[tf.Tensor]:
        config = config_of(xla=True, memory_bytes=memory_bytes, **options)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            parents, _ = routed(tensors, config)
            total = tf.reduce_sum(parents.poses_BNP**2) + tf.reduce_sum(parents.activations_BN**2)
        gradients = tape.gradient(total, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [parents.poses_BNP, parents.activations_BN, *tf.nest.flatten(gradients)]

    for kept, again in zip(differentiated("1GiB"), differentiated("1B"), strict=True):
        np.testing.assert_allclose(again, kept, rtol=EXACT, atol=EXACT)


def test_little_memory_is_kept_to_by_making_iterations_again() -> None:
    sizes = LayerSizes(288, 288, 32, 16, 16)
    kept = choose(config_of(xla=True), sizes, 64)  # votes of 37.7 MB, 13 times over
    assert (kept.keep, kept.why) == ("all", "em compares each vote with the mean of all; all votes are 37.7 MB")
    again = choose(config_of(xla=True, memory_bytes="400MB"), sizes, 64)
    assert again.keep == "nothing"
    assert "made again" in again.why
    peaks = {}
    for memory_bytes in ("1GiB", "1MB"):
        config = config_of(xla=True, memory_bytes=memory_bytes)

        @tf.function(autograph=False)
        def step(poses_BIP, matrices_TPJQ, config=config) -> tf.Tensor:
            given = {"beta_activation": tf.zeros([32]), "beta_cost": tf.zeros([32])}
            with tf.GradientTape() as tape:
                tape.watch(matrices_TPJQ)
                children = Capsules(poses_BIP, tf.ones([8, 288]))
                parents, _ = em.route(children, Transform((matrices_TPJQ,)), given, config)
                total = tf.reduce_sum(parents.poses_BNP)
            return tape.gradient(total, matrices_TPJQ)

        graph = step.get_concrete_function(tf.TensorSpec([8, 288, 16]), tf.TensorSpec([288, 16, 32, 16])).graph
        peaks[memory_bytes] = held.peak(graph)
    assert peaks["1MB"] < 0.5 * peaks["1GiB"]


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("transforms", [I, 2])
def test_gradients_against_differences(transforms: int, stopped: bool) -> None:
    given = arguments(transforms, seed=1)
    given["poses"] = given["poses"] * 0.3  # softer assignments, whose third derivatives a difference can stand
    config = config_of(bias=True, leaky=True, xla=False, stop_gradient=stopped)
    held = {"last_coupling_BIJ": expected(given, config)[2][-1]} if stopped else {}
    rng = np.random.default_rng(2)
    weights_BJQ, weights_BJ = rng.normal(size=(B, J, Q)), rng.normal(size=(B, J))
    tensors = {name: tf.constant(value) for name, value in given.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        parents, _ = routed(tensors, config)
        total = tf.reduce_sum(parents.poses_BNP * weights_BJQ) + tf.reduce_sum(parents.activations_BN * weights_BJ)
    found = tape.gradient(total, tensors)
    for name, value in given.items():

        def objective(changed: np.ndarray, name: str = name) -> float:
            poses_BJQ, activations_BJ, _ = expected(given | {name: changed}, config, **held)
            return float(np.sum(poses_BJQ * weights_BJQ) + np.sum(activations_BJ * weights_BJ))

        difference = oracles.finite_difference(objective, value)
        np.testing.assert_allclose(found[name], difference, rtol=DIFFERENCE, atol=DIFFERENCE, err_msg=name)


def test_order_of_children_and_parents() -> None:
    given, config = arguments(), config_of()
    plain, _ = routed(given, config)
    order = np.random.default_rng(3).permutation(I)
    moved = given | {
        "poses": given["poses"][:, order],
        "activations": given["activations"][:, order],
        "transform": given["transform"][order],
    }
    for found, value in zip(routed(moved, config)[0], plain, strict=True):
        np.testing.assert_allclose(found, value, rtol=EXACT, atol=EXACT)
    order = np.random.default_rng(4).permutation(J)
    moved = given | {name: given[name][order] for name in ("beta_activation", "beta_cost")}
    moved["transform"] = given["transform"][:, :, order]
    for found, value in zip(routed(moved, config)[0], plain, strict=True):
        np.testing.assert_allclose(found, value.numpy()[:, order], rtol=EXACT, atol=EXACT)


def test_a_child_that_is_not_there_does_not_count() -> None:
    given = arguments()
    given["activations"][:, 0] = 0.0
    without = given | {name: given[name][:, 1:] for name in ("poses", "activations")}
    without["transform"] = given["transform"][1:]
    config = config_of(iterations=1)
    # 1e-12 is the smallest activation; the cost is per child, and there is one less of them
    np.testing.assert_allclose(
        routed(given, config)[0].poses_BNP, routed(without, config)[0].poses_BNP, rtol=EXACT, atol=EXACT
    )


VALUES = [0.0, 1e-30, 1e-3, 1.0, 1e2, 1e18]


@pytest.mark.parametrize("kind", ["identical", "different"])
@pytest.mark.parametrize("activation", [0.0, 1e-30, 1.0])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(dtype, size) for dtype in (tf.float32, tf.bfloat16, tf.float16) for size in VALUES if size <= float(dtype.max)],
)
def test_finite(dtype: tf.DType, size: float, activation: float, kind: str) -> None:
    given = arguments() | {"activations": np.full((B, I), activation)}
    given["poses"] = np.full((B, I, P), size) if kind == "identical" else given["poses"] * size
    config = config_of(xla=False)
    tensors = {name: tf.cast(given[name], dtype if name in ("poses", "transform") else tf.float32) for name in given}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        parents, _ = em.route(
            Capsules(tensors["poses"], tensors["activations"]),
            Transform((tensors["transform"],)),
            {name: tensors[name] for name in ("beta_activation", "beta_cost")},
            config,
        )
        total = tf.reduce_sum(parents.poses_BNP) + tf.reduce_sum(parents.activations_BN)
    found = tape.gradient(total, tensors)
    assert parents.poses_BNP.dtype == parents.activations_BN.dtype == tf.float32
    for value in [*parents, *(gradient for name, gradient in found.items() if name != "bias")]:
        assert np.all(np.isfinite(tf.cast(value, tf.float32)))
    assert np.all((parents.activations_BN >= 0.0) & (parents.activations_BN <= 1.0))


@pytest.mark.parametrize(
    ("fan", "xla"), [*((fan, False) for fan in FANS), *((fan, True) for fan in FANS[2:4])], ids=str
)
def test_children_compete_for_the_parents_of_all_their_windows(fan: Fan, xla: bool) -> None:
    config = config_of(xla=xla)
    made = ConvolutionalCapsules(
        J, Q, config, child_types=T, fan=fan, residual=False, seed=0, dtype="float64", name="layer_0"
    )
    made.build((None, None, P))
    rng = np.random.default_rng(5)
    made.extra["beta_activation"].assign(rng.normal(size=J))
    made.extra["beta_cost"].assign(rng.normal(size=J))
    poses = rng.normal(size=(B, fan.side, fan.side, T, P)) * 0.3
    activations = rng.uniform(0.05, 1.0, (B, fan.side, fan.side, T))
    children = Capsules(tf.constant(poses.reshape(B, -1, P)), tf.constant(activations.reshape(B, -1)))
    parents, trace = made(children, trace=True, coupling_records=B)
    number = fan.windows**2
    for n in range(B):
        poses_NJQ, activations_NJ, assignment_RNKTJ = oracles_em.convolutional(
            poses[n],
            activations[n],
            made.transform_parts[0].numpy().reshape(fan.kernel**2, T, P, J, Q),
            made.extra["beta_activation"].numpy(),
            made.extra["beta_cost"].numpy(),
            config.iterations,
            windows(fan),
            inverse_temperature=config.em.inverse_temperature,
            decay=config.em.inverse_temperature_decay,
        )
        np.testing.assert_allclose(parents.poses_BNP[n], poses_NJQ.reshape(-1, Q), rtol=EXACT, atol=EXACT)
        np.testing.assert_allclose(parents.activations_BN[n], activations_NJ.reshape(-1), rtol=EXACT)
        couplings = trace.coupling_RNIJ[:, n].numpy().reshape(3, number, fan.kernel**2, T, J)
        inside = np.array([[at is not None for at in seen] for seen in windows(fan)])
        np.testing.assert_allclose(couplings[:, inside], assignment_RNKTJ[:, inside], rtol=EXACT, atol=EXACT)
        # sums over all windows of a child, by position
        sums = np.zeros((3, fan.side, fan.side, T))
        for w, seen in enumerate(windows(fan)):
            for k, at in enumerate(seen):
                if at is not None:
                    sums[:, at[0], at[1]] += couplings[:, w, k].sum(axis=-1)
        reached = sums > 0.0
        np.testing.assert_allclose(sums[reached], 1.0, rtol=EXACT)


def test_matrices_are_multiplied_from_the_right() -> None:
    rng = np.random.default_rng(6)
    poses_BIMM, transform_TMJM = rng.normal(size=(B, I, 3, 3)), rng.normal(size=(T, 3, J, 3))
    expanded_TPJQ = of_matrices(tf.constant(transform_TMJM), 3).numpy()
    for n, i, j in np.ndindex(B, I, J):
        vote = poses_BIMM[n, i] @ transform_TMJM[i % T, :, j]
        found = expanded_TPJQ[i % T, :, j].T @ poses_BIMM[n, i].ravel()
        np.testing.assert_allclose(found, vote.ravel(), rtol=1e-12, atol=1e-12)  # sums of nine products


@pytest.mark.parametrize(("rows", "pose", "places"), [(1, 4, (0, 1)), (2, 4, (1, 3)), (4, 16, (3, 7))])
def test_coordinates_are_added_to_votes(rows: int, pose: int, places: tuple[int, int]) -> None:
    side, rng = 3, np.random.default_rng(7)
    poses_BIP, transform_TPJQ = rng.normal(size=(B, side * side * T, P)), rng.normal(size=(T, P, J, pose))
    moved_BIP = with_coordinates(tf.constant(poses_BIP), side)
    moved_TPJQ = onto_coordinates(tf.constant(transform_TPJQ), rows)
    for row, column, t, j in np.ndindex(side, side, T, J):
        i = (row * side + column) * T + t
        expected_BQ = poses_BIP[:, i] @ transform_TPJQ[t, :, j]
        expected_BQ[:, places[0]] += (row + 0.5) / side
        expected_BQ[:, places[1]] += (column + 0.5) / side
        np.testing.assert_allclose(moved_BIP[:, i].numpy() @ moved_TPJQ[t, :, j].numpy(), expected_BQ, rtol=1e-12)


def test_coordinates_in_the_class_capsules() -> None:
    side, config = 3, RoutingConfig(algorithm="uniform")
    children = Capsules(tf.zeros([B, side * side * T, 4]), tf.ones([B, side * side * T]))
    made = CapsuleLayer(
        J, 4, config, children=side * side * T, transforms=T, rows=2, coordinates=side, seed=0, dtype="float32"
    )
    made.build((None, None, 4))
    assert made.transform_parts[0].shape == (T, 2, J, 2)
    poses_BJQ = made(children)[0].poses_BNP.numpy()
    assert np.all(poses_BJQ[..., [0, 2]] == 0.0)
    # mean coordinates are 1/2, of 18 children with couplings 1/3: |s| = 3 sqrt(2), squashed to 18/19
    np.testing.assert_allclose(np.linalg.norm(poses_BJQ, axis=-1), 18 / 19, rtol=1e-6)


NETWORK = {
    "image_size": 14,
    "classes": 3,
    "matrix_poses": True,
    "stem": {"channels": [8], "kernel": 3, "strides": [2]},
    "primary": {"types": 2, "pose": 4, "kernel": 1, "stride": 1, "nonlinearity": "none", "activation": "sigmoid"},
    "layers": {"types": [3], "poses": [4], "kernels": [3], "strides": [2]},
    "routing": {"algorithm": "em"},
    "head": {"pose": 4, "transform": "shared", "coordinates": True},
    "decoder": {"hidden": []},
}


@pytest.mark.parametrize("algorithm", ["em", "dynamic", "self_routing"])
def test_a_matrix_capsule_network(algorithm: str) -> None:
    config = ModelConfig.model_validate(NETWORK | {"routing": {"algorithm": algorithm}})
    net, sizes = build(config), shapes(config)
    assert sizes.parameters == net.count_params()
    if algorithm == "em":
        # 3x3x1x8+8; 8x2x4+8, 8x2+2; transforms of 2x2 and two betas a parent
        assert sizes.parameters == 80 + 72 + 18 + (9 * 2 * 3 * 4 + 2 * 3) + (3 * 3 * 4 + 2 * 3)
    outputs = net(np.random.default_rng(8).random((B, 14, 14, 1)).astype(np.float32), trace=True)
    assert list(outputs.traces) == ["layer_0", "class_capsules"]
    assert np.all(np.isfinite(outputs.class_scores_BJ))


XLA = {"float32": False, "float64": False, "bfloat16": False, "float16": True}  # its compilations take most of the time


@pytest.mark.parametrize("precision", XLA)
def test_precisions_and_unknown_batch_size(precision: str) -> None:
    fields = {"layers": NETWORK["layers"] | {"padding": "same"}, "routing": {"algorithm": "em", "xla": XLA[precision]}}
    net = build(ModelConfig.model_validate(NETWORK | fields), precision=precision)
    wide = tf.float64 if precision == "float64" else tf.float32

    @tf.function(input_signature=[tf.TensorSpec([None, 14, 14, 1], wide)])
    def step(images_BHWC: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.square(net(images_BHWC).class_scores_BJ - [[1.0, 0.0, 0.0]]))
        variables = [variable.value for variable in net.trainable_variables]
        return total, tape.gradient(total, variables)

    for records, scale in ((1, 1.0), (3, 0.0), (3, 255.0)):
        images_BHWC = np.random.default_rng(9).random((records, 14, 14, 1)) * scale
        total, found = step(tf.cast(images_BHWC, wide))
        assert total.dtype == wide
        assert all(np.all(np.isfinite(value)) for value in [total, *found])


def test_primary_capsules_with_logistic_activations() -> None:
    config = ModelConfig.model_validate(NETWORK).primary
    made = PrimaryCapsules(config, seed=0, dtype="float32")
    made.build((None, 3, 3, 8))
    features_BHWC = np.random.default_rng(10).normal(size=(B, 3, 3, 8)).astype(np.float32)
    poses_BIP, activations_BI = made(features_BHWC)
    kernel, bias = made.conv.kernel.numpy()[0, 0], made.conv.bias.numpy()
    np.testing.assert_allclose(poses_BIP, (features_BHWC @ kernel + bias).reshape(B, -1, 4), rtol=1e-4, atol=1e-6)
    logits = features_BHWC @ made.activation_conv.kernel.numpy()[0, 0] + made.activation_conv.bias.numpy()
    np.testing.assert_allclose(activations_BI, (1 / (1 + np.exp(-logits))).reshape(B, -1), rtol=1e-4)  # float32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head": {"pose": 9, "transform": "shared"}}, "one square number, as 16 for 4x4, not 4, 9"),
        ({"head": {"pose": 4, "transform": "low_rank"}}, "low_rank is for vectors"),
        ({"head": {"pose": 4, "coordinates": True}}, "positions share"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelConfig.model_validate(NETWORK | changes)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_inverse_temperature_at_the_first_iteration(decay: float) -> None:
    """The logit of an activation is lambda (1 - d^t) (beta_a - cost)."""

    def logit(**changes) -> np.ndarray:
        activations_BJ = routed(arguments(), config_of(iterations=1, em=changes))[0].activations_BN.numpy()
        return np.log(activations_BJ / (1.0 - activations_BJ))

    whole = logit(inverse_temperature=0.5, inverse_temperature_decay=0.0)
    np.testing.assert_allclose(
        logit(inverse_temperature=1.5, inverse_temperature_decay=decay), 3.0 * (1.0 - decay) * whole, rtol=EXACT
    )
