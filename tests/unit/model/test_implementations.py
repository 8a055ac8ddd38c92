"""All implementations of a routing algorithm give the same, in outputs, gradients and traces, at any cut into blocks.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import functools
import itertools
import math
import typing

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import RoutingConfig
from trainer.model import routing
from trainer.model.routing import Capsules, LayerSizes, Transform, choice
from trainer.model.squash import lengths

ROUNDING = 1e-11  # float64: sums of tens of terms in another order, 1e-16 each, through softmaxes and back
SINGLE = 2e-5  # float32: the same with 6e-8 each
B, I, J, P, Q = 3, 12, 5, 2, 4  # noqa: E741

CUTS = [(1, 1), (4, 1), (5, 1), (12, 1)]  # children of a block; 5 leaves a ragged last block
SHARED_CUTS = [(1, 1), (1, 2), (1, 4), (2, 4), (3, 4)]  # transforms and positions, I = 3 transforms x 4 positions
OPTIONS = [
    {},
    {"leaky": True, "bias": True},
    {"stop_gradient": True, "bias": True},
    {"iterations": 1, "bias": True},
    {"iterations": 1, "stop_gradient": True},
    {"iterations": 2, "temperature": 0.5},
    {"iterations": 5, "leaky": True},
    {"agreement": "cosine"},
    {"agreement": "cosine", "leaky": True, "bias": True, "temperature": 0.5},
    {"agreement": "cosine", "stop_gradient": True},
    {"agreement": "cosine", "iterations": 1},
]
COSINE = OPTIONS[-4:]
KEEPS = typing.get_args(choice.Keep)


def example(transforms: int = I, dtype=np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(B, I, P), (transforms, P, J, Q), (J, Q), (B, J, Q)]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def run(
    arguments: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    implementation: str,
    cut: tuple[int, int] = (1, 1),
    *,
    keep: choice.Keep = "all",
    parts: tuple[int, ...] = (),
    dtype: tf.DType | None = None,
    **options,
):
    """(poses, gradients of poses, transform and other weights, trace), traced in a graph as in training."""
    config = RoutingConfig(implementation=implementation, **options)
    monkeypatch.setattr(choice, "choose", lambda *_, gpu: choice.Choice(implementation, *cut, keep, "for the test"))
    poses_BIP, transform_TPJQ, bias_JQ, weights_BJQ = (tf.convert_to_tensor(a) for a in arguments)
    module = routing.get(config.algorithm)
    sizes = LayerSizes(I, transform_TPJQ.shape[0], J, P, Q)
    extra = {
        name: tf.convert_to_tensor(np.random.default_rng(number).normal(size=spec.shape), weights_BJQ.dtype)
        for number, (name, spec) in enumerate(module.weights(config, sizes).items())
    }
    if config.bias:
        extra["bias"] = bias_JQ
    if dtype is not None:
        poses_BIP, transform_TPJQ = tf.cast(poses_BIP, dtype), tf.cast(transform_TPJQ, dtype)

    @tf.function(autograph=False)
    def step():
        split = tf.split(transform_TPJQ, parts) if parts else [transform_TPJQ]
        sources = [poses_BIP, *split, *extra.values()]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            children = Capsules(poses_BIP, lengths(poses_BIP))
            parents, trace = module.route(
                children, Transform(tuple(split)), extra, config, trace=True, coupling_records=2
            )
            total = tf.reduce_sum(parents.poses_BNP * weights_BJQ) + tf.reduce_sum(parents.activations_BN**2)
        found = tape.gradient(total, sources)
        return parents.poses_BNP, [found[0], tf.concat(found[1 : 1 + len(split)], 0), *found[1 + len(split) :]], trace

    return step()


@functools.cache
def stored(transforms: int, dtype: type, xla: bool, options: tuple[tuple[str, object], ...]):
    """As ``run``; what implementations are compared with, computed once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run(example(transforms, dtype), monkeypatch, "stored", xla=xla, **dict(options))


def assert_same(found, expected, tolerance: float) -> None:
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


OTHERS = [
    {"algorithm": "inverted"},
    {"algorithm": "inverted", "leaky": True, "bias": True},
    {"algorithm": "inverted", "stop_gradient": True},
    {"algorithm": "inverted", "iterations": 1},
    {"algorithm": "self_routing"},
    {"algorithm": "self_routing", "leaky": True, "bias": True},
    {"algorithm": "self_attention"},
    {"algorithm": "self_attention", "leaky": True, "bias": True},
]
RULES = [*OPTIONS[1:], *OTHERS]
CASES = [  # every cut and every rule with all that can be kept, and every rule with a ragged cut of each kind
    *(({}, I, cut, keep) for cut in CUTS for keep in KEEPS),
    *(({}, 3, cut, keep) for cut in SHARED_CUTS for keep in KEEPS),
    *(
        (options, *[(I, (5, 1)), (3, (2, 4))][(number + turn) % 2], keep)
        for number, options in enumerate(RULES)
        for turn, keep in enumerate(KEEPS)
    ),
    *((options, 3, (1, 3), KEEPS[turn % len(KEEPS)]) for turn, options in enumerate([*OTHERS[::2], COSINE[0]])),
]


@pytest.mark.parametrize(("options", "transforms", "cut", "keep"), CASES, ids=str)
def test_streamed_is_stored(options: dict, transforms: int, cut: tuple, keep: choice.Keep, monkeypatch) -> None:
    found = run(example(transforms), monkeypatch, "streamed", cut, keep=keep, xla=False, **options)
    assert_same(found, stored(transforms, np.float64, False, tuple(options.items())), ROUNDING)


COMPILED = [{}, OPTIONS[1], COSINE[1], OTHERS[1], OTHERS[5], OTHERS[7]]
COMPILED_CASES = [  # each rule with both cuts; each cut with all that can be kept
    (options, *cut, KEEPS[(number + turn) % len(KEEPS)])
    for number, options in enumerate(COMPILED)
    for turn, cut in enumerate([(I, (5, 1)), (3, (1, 3))])
]


@pytest.mark.parametrize(("options", "transforms", "cut", "keep"), COMPILED_CASES, ids=str)
def test_streamed_under_xla_is_stored(
    options: dict, transforms: int, cut: tuple, keep: choice.Keep, monkeypatch
) -> None:
    for dtype, tolerance in ((np.float64, ROUNDING), (np.float32, SINGLE)):
        expected, compiled = (stored(transforms, dtype, xla, tuple(options.items())) for xla in (False, True))
        assert_same(compiled, expected, tolerance)
        found = run(example(transforms, dtype), monkeypatch, "streamed", cut, keep=keep, xla=True, **options)
        assert_same(found, expected, tolerance)


@pytest.mark.parametrize(("transforms", "parts"), [(I, (8, 4)), (I, (5, 5, 2)), (3, (2, 1))], ids=str)
@pytest.mark.parametrize("implementation", ["stored", "streamed"])
@pytest.mark.parametrize("options", [{}, COSINE[0]], ids=str)
def test_parts_of_a_transform_are_the_whole(
    transforms: int, parts: tuple, implementation: str, options: dict, monkeypatch
) -> None:
    expected = stored(transforms, np.float64, False, tuple(options.items()))
    found = run(example(transforms), monkeypatch, implementation, (2, 2), parts=parts, xla=False, **options)
    assert_same(found, expected, ROUNDING)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
@pytest.mark.parametrize(("transforms", "cut"), [(I, (5, 1)), (3, (1, 3))], ids=str)
def test_half_precision_rounds_votes_and_gradients_only(dtype, transforms: int, cut: tuple, monkeypatch) -> None:
    arguments = example(transforms, np.float32)
    exact = run(arguments, monkeypatch, "streamed", cut, xla=False)
    poses_BJQ, gradients, _ = run(arguments, monkeypatch, "streamed", cut, xla=False, dtype=dtype)
    unit = 2.0**-8 if dtype == tf.bfloat16 else 2.0**-11
    assert poses_BJQ.dtype == tf.float32
    assert {gradient.dtype for gradient in gradients} == {dtype}
    np.testing.assert_allclose(poses_BJQ, exact[0], atol=20 * unit)  # votes of length up to 5, a few rounded factors
    for ours, theirs in zip(gradients, exact[1], strict=True):
        size = np.max(np.abs(theirs))
        np.testing.assert_allclose(tf.cast(ours, tf.float32), theirs, atol=40 * unit * size)


def test_weighted_sum_is_the_same_written_out_and_as_a_product() -> None:
    from trainer.model.routing import full_blocks as blocks

    rng = np.random.default_rng(1)
    for children in (blocks.UNROLLED, blocks.UNROLLED + 1):
        weights_nBJ, votes_nBJQ = rng.normal(size=(children, B, J)), rng.normal(size=(children, B, J, Q))
        sum_BJQ = rng.normal(size=(B, J, Q))
        expected = sum_BJQ + np.einsum("nbj,nbjq->bjq", weights_nBJ, votes_nBJQ)
        found = blocks.weighted_sum(*map(tf.convert_to_tensor, (weights_nBJ, votes_nBJQ, sum_BJQ)))
        np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)


SIZES = [
    LayerSizes(1152, 1152, 10, 8, 16),
    LayerSizes(1568, 1568, 100, 16, 16),
    LayerSizes(2048, 32, 1000, 16, 16),
    LayerSizes(2048, 1, 1000, 16, 16),
    LayerSizes(7, 7, 1000, 8, 16),
]


@pytest.mark.parametrize(("sizes", "batch"), itertools.product(SIZES, (1, 16, 128, None)), ids=str)
def test_blocks_keep_to_their_size(sizes: LayerSizes, batch: int | None) -> None:
    found = choice.choose(RoutingConfig(), sizes, batch)
    positions = sizes.children // sizes.transforms
    assert 1 <= found.transforms <= sizes.transforms
    assert 1 <= found.positions <= positions
    each = 4 * (batch or choice.UNKNOWN_BATCH) * sizes.parents * (sizes.pose if positions == 1 else 1)
    children = found.transforms * found.positions
    fewest = math.ceil(sizes.children / choice.MOST_BLOCKS)
    assert children <= fewest or children * each <= choice.BLOCK_BYTES


@pytest.mark.parametrize(("gpu", "blocks"), [(False, 31), (True, 1)])
def test_blocks_go_by_the_device_and_can_be_set(gpu: bool, blocks: int) -> None:
    sizes = LayerSizes(1152, 1152, 10, 8, 16)  # votes of 94.4 MB
    found = choice.choose(RoutingConfig(implementation="streamed"), sizes, 128, gpu=gpu)
    assert math.ceil(1152 / found.transforms) == blocks
    ours = choice.choose(RoutingConfig(implementation="streamed", block_bytes="32MiB"), sizes, 128, gpu=gpu)
    assert math.ceil(1152 / ours.transforms) == 3


def test_a_gpu_gets_stored_votes_where_there_is_room_and_they_would_be_made_anyway() -> None:
    own, shared = LayerSizes(1152, 1152, 10, 8, 16), LayerSizes(2048, 32, 1000, 16, 16)
    chosen = {
        (sizes, size): choice.choose(RoutingConfig(memory_bytes=size), sizes, 128, gpu=True).implementation
        for sizes, size in itertools.product((own, shared), ("1GiB", "200MB", "200GiB"))
    }
    assert [chosen[own, size] for size in ("1GiB", "200MB", "200GiB")] == ["stored", "stored", "stored"]
    assert {chosen[shared, size] for size in ("1GiB", "200MB", "200GiB")} == {"streamed"}
    assert choice.choose(RoutingConfig(), own, 1024, gpu=True).implementation == "streamed"  # 3 x 755 MB


def test_the_choice_goes_by_sizes_and_says_why() -> None:
    sizes = LayerSizes(1152, 1152, 10, 8, 16)
    many = choice.choose(RoutingConfig(), sizes, 128)
    assert many.implementation == "streamed"
    assert "94.4 MB" in many.why
    few = choice.choose(RoutingConfig(), sizes, 1)
    assert few.implementation == "stored"
    assert choice.choose(RoutingConfig(implementation="stored"), sizes, 128).why == "as configured"
    assert choice.choose(RoutingConfig(xla=False), sizes, 128).implementation == "stored"
    assert choice.choose(RoutingConfig(xla=False, memory_bytes="10MB"), sizes, 128).implementation == "streamed"
    kept = {size: choice.choose(RoutingConfig(memory_bytes=size), sizes, 128).keep for size in ("24MB", "12MB", "10MB")}
    assert kept == {"24MB": "all", "12MB": "couplings", "10MB": "nothing"}  # couplings of two iterations are 11.8 MB


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"algorithm": "em"}, "em compares each vote with the mean of all"),
        ({"algorithm": "inverted", "concurrent": True}, "concurrent iterations begin with poses of the parents"),
    ],
)
def test_what_needs_votes_is_not_streamed(fields: dict, why: str) -> None:
    roomy = RoutingConfig(memory_bytes="10GiB", **fields)  # so that em need not make its iterations again
    found = choice.choose(roomy, LayerSizes(1152, 1152, 10, 8, 16), 128)
    assert (found.implementation, found.why) == ("stored", f"{why}; all votes are 94.4 MB")
    with pytest.raises(ValueError, match=why):
        RoutingConfig(implementation="streamed", **fields)


@pytest.mark.parametrize("algorithm", ["dynamic", "inverted", "self_routing", "self_attention"])
def test_large_votes_are_streamed(algorithm: str) -> None:
    found = choice.choose(RoutingConfig(algorithm=algorithm), LayerSizes(512, 512, 1000, 16, 16), 16)
    assert found.implementation == "streamed"


def test_cosine_is_chosen_for_as_the_product_is_but_for_the_size_of_shared_blocks() -> None:
    for sizes, batch in itertools.product(SIZES, (1, 16, 128, None)):
        by_product, by_cosine = (choice.choose(RoutingConfig(agreement=of), sizes, batch) for of in ("dot", "cosine"))
        if sizes.children == sizes.transforms:
            assert by_cosine == by_product
        children = by_cosine.transforms * by_cosine.positions
        votes = 4 * (batch or choice.UNKNOWN_BATCH) * sizes.parents * sizes.pose * children
        assert children <= math.ceil(sizes.children / choice.MOST_BLOCKS) or votes <= choice.BLOCK_BYTES
        assert by_cosine.keep == by_product.keep


@pytest.mark.parametrize(
    ("sizes", "batch"),
    [
        (LayerSizes(512, 256, 2, 8, 16), 2048),  # two positions
        (LayerSizes(200_000, 200_000, 2, 2, 2), 1),
        (LayerSizes(80_000, 40_000, 2, 2, 2), 512),
        (LayerSizes(16, 8, 2, 2, 2), 100_000),
    ],
)
def test_a_block_is_within_the_limit_of_batched_multiplications(sizes: LayerSizes, batch: int) -> None:
    found = choice.choose(RoutingConfig(implementation="streamed"), sizes, batch)
    products = found.transforms * (1 if sizes.transforms == sizes.children else batch)
    assert found.transforms == 1 or products <= 65_535


STEPS = [
    (name, transforms)
    for name in ("dynamic", "em", "inverted", "self_routing", "self_attention")
    for transforms in (I, 3)
]


def step_of(algorithm: str, transforms: int):
    """(a step of a layer with its gradient, its arguments)."""
    poses_BIP, transform_TPJQ, _, _ = example(transforms, np.float32)
    config = RoutingConfig(algorithm=algorithm, implementation="stored" if algorithm == "em" else "streamed")
    module = routing.get(algorithm)
    weights = module.weights(config, LayerSizes(I, transforms, J, P, Q))
    extra = {name: np.ones(spec.shape, np.float32) for name, spec in weights.items()}

    @tf.function(autograph=False)
    def step(*sources: tf.Tensor):
        poses_BIP, transform_TPJQ, *others = sources
        with tf.GradientTape() as tape:
            tape.watch(sources)
            children = Capsules(poses_BIP, lengths(poses_BIP))
            named = dict(zip(extra, others, strict=True))
            parents, _ = module.route(children, Transform((transform_TPJQ,)), named, config)
            total = tf.reduce_sum(parents.activations_BN) + tf.reduce_sum(parents.poses_BNP)
        return tape.gradient(total, sources[:2])

    return step, [poses_BIP, transform_TPJQ, *extra.values()]


@pytest.mark.parametrize(("algorithm", "transforms"), STEPS)
def test_nothing_leaves_the_graph(algorithm: str, transforms: int) -> None:
    """No host round trip: each operation of step and gradient has a kernel of TensorFlow or XLA."""
    step, sources = step_of(algorithm, transforms)
    graph = step.get_concrete_function(*sources).graph.as_graph_def()
    used = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    assert "MatMul" in "".join(used)
    assert not {op for op in used if "PyFunc" in op or "Numpy" in op or op in ("Print", "PrintV2")}


def test_the_whole_step_can_be_compiled() -> None:
    """XLA refuses what it cannot compile."""
    step, sources = step_of("dynamic", I)
    whole = tf.function(step, jit_compile=True)
    for ours, theirs in zip(whole(*sources), step(*sources), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=SINGLE, atol=SINGLE)
