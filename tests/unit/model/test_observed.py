"""What is measured beside routing, against loops over records, windows and children.

Axes: N records, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import RunConfig, with_overrides
from trainer.model import network, observed
from trainer.model.network import CapsNet
from trainer.model.observed import Observed
from trainer.model.routing.trace import RoutingTrace

EXACT = 1e-9  # float64, some hundred additions
N, J, Q = 5, 6, 4
BASE = {
    "model.image_size": 12,
    "model.classes": J,
    "model.stem.channels": "8",
    "model.stem.kernel": 5,
    "model.primary.types": 3,
    "model.primary.pose": 4,
    "model.primary.kernel": 4,
    "model.head.pose": Q,
    "model.head.initial_stddev": 2.0,  # so that routing decides
    "model.decoder.hidden": "",
    "model.routing.xla": False,
    "train.precision": "float64",
}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "shared": {"model.head.transform": "shared"},
    "low_rank": {"model.head.transform": "low_rank", "model.head.rank": 3},
    "em": {"model.routing.algorithm": "em"},
    "self_attention": {"model.routing.algorithm": "self_attention"},
    "matrices": {"model.matrix_poses": True},
    "coordinates": {"model.head.transform": "shared", "model.head.coordinates": True},
    "layers": {
        "model.layers.types": "3",
        "model.layers.poses": "4",
        "model.layers.kernels": "2",
        "model.layers.strides": "1",
    },
}


def looked_at(case: str, **more: Any) -> tuple[CapsNet, dict[str, RoutingTrace], dict[str, Observed], tf.Tensor]:
    config = with_overrides(RunConfig(), {**BASE, **CASES[case], **more})
    net = network.build(config.model, precision="float64", seed=1)
    images = tf.constant(np.random.default_rng(0).random((N, 12, 12, 1)))
    traces = net(images, trace=True, coupling_records=N).traces
    layers = {layer.name: layer for layer in [*net.capsule_layers, net.class_capsules]}
    return net, traces, {name: observed.observe(layers[name], trace) for name, trace in traces.items()}, images


@pytest.mark.parametrize("case", [case for case in CASES if case != "layers"])
def test_agreement_is_the_cosine_of_votes_and_winner(case: str) -> None:
    net, traces, found, _ = looked_at(case)
    trace = traces["class_capsules"]
    poses_NIP, transform = net.class_capsules.projected(trace.children.poses_BNP)
    transform_TPJQ = np.concatenate([part.numpy() for part in transform.parts_TPJQ])
    total = weight = plain = 0.0
    children = poses_NIP.shape[1]
    for n in range(N):
        winner = int(np.argmax(trace.parents.activations_BN[n]))
        pose = trace.parents.poses_BNP.numpy()[n, winner]
        for i in range(children):
            vote = poses_NIP.numpy()[n, i] @ transform_TPJQ[i % len(transform_TPJQ), :, winner]
            cosine = float(vote @ pose) / math.sqrt(float(vote @ vote) * float(pose @ pose))
            coupling = float(trace.coupling_RNIJ[-1, n, i, winner])
            total, weight, plain = total + coupling * cosine, weight + coupling, plain + cosine
    assert float(found["class_capsules"].agreement) == pytest.approx(total / weight, rel=EXACT)
    assert float(found["class_capsules"].agreement_of_all) == pytest.approx(plain / (N * children), rel=EXACT)


def test_routing_gives_weight_to_those_that_agree() -> None:
    _, _, found, _ = looked_at("full")
    assert float(found["class_capsules"].agreement) > float(found["class_capsules"].agreement_of_all) + 0.05


def test_the_winner_is_compared_with_that_of_uniform_couplings() -> None:
    net, traces, found, images = looked_at("full")
    once = looked_at("full", **{"model.routing.iterations": 1})[0]
    for ours, theirs in zip(once.variables, net.variables, strict=True):
        ours.assign(theirs)
    winner_N = np.argmax(traces["class_capsules"].parents.activations_BN, axis=-1)
    uniform_N = np.argmax(once(images).class_scores_BJ, axis=-1)
    assert float(found["class_capsules"].winner_changed) == pytest.approx(np.mean(winner_N != uniform_N))
    assert 0 < np.mean(winner_N != uniform_N) < 1
    of_one = net(images, trace=True, coupling_records=1).traces["class_capsules"]  # the winners are of all records
    assert observed.observe(net.class_capsules, of_one).winner_changed == found["class_capsules"].winner_changed


def test_an_algorithm_without_iterations_is_compared_with_uniform_couplings() -> None:
    net, traces, found, images = looked_at("self_attention")
    uniform = looked_at("self_attention", **{"model.routing.algorithm": "uniform"})[0]
    by_path = {variable.path: variable for variable in net.variables}
    for ours in uniform.variables:
        ours.assign(by_path[ours.path])
    winner_N = np.argmax(traces["class_capsules"].parents.activations_BN, axis=-1)
    uniform_N = np.argmax(uniform(images).class_scores_BJ, axis=-1)
    assert float(found["class_capsules"].winner_changed) == pytest.approx(np.mean(winner_N != uniform_N))
    assert found["class_capsules"].favourite_changed is None


def test_a_favourite_is_the_largest_coupling() -> None:
    _, traces, found, _ = looked_at("full")
    coupling_RNIJ = traces["class_capsules"].coupling_RNIJ.numpy()
    changed = np.mean(coupling_RNIJ[1].argmax(-1) != coupling_RNIJ[2].argmax(-1))
    assert float(found["class_capsules"].favourite_changed) == pytest.approx(changed)
    assert 0 < changed < 1
    assert looked_at("full", **{"model.routing.iterations": 2})[2]["class_capsules"].favourite_changed is None


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_windows_of_a_convolutional_layer_are_measured_one_by_one(padding: str) -> None:
    net, traces, found, _ = looked_at("layers", **{"model.layers.padding": padding})
    layer, trace = net.capsule_layers[0], traces["layer_0"]
    windows, kernel, types = layer.fan.windows, 2, 3
    assert windows > 1
    (part,) = layer.projected(layer.seen(trace.children).poses_BNP)[1].parts_TPJQ
    side = layer.fan.side
    poses_NHWTP = trace.children.poses_BNP.numpy().reshape(N, side, side, types, -1)
    parents_NHWJQ = trace.parents.poses_BNP.numpy().reshape(N, windows, windows, 3, -1)
    coupling_R = trace.coupling_RNIJ.numpy().reshape(-1, N, windows, windows, kernel, kernel, types, 3)
    transform = part.numpy().reshape(kernel, kernel, types, *part.shape[1:])
    total, weight, cosines, changed = 0.0, 0.0, [], []
    for n, row, column in np.ndindex(N, windows, windows):
        winner = int(np.argmax(np.linalg.norm(parents_NHWJQ[n, row, column], axis=-1)))
        pose = parents_NHWJQ[n, row, column, winner]
        for down, right, t in np.ndindex(kernel, kernel, types):
            at = row + down - layer.fan.before, column + right - layer.fan.before
            if not 0 <= min(at) <= max(at) < side:
                continue  # nothing is there
            vote = poses_NHWTP[n, *at, t] @ transform[down, right, t, :, winner]
            cosine = float(vote @ pose) / math.sqrt(float(vote @ vote) * float(pose @ pose))
            coupling_RJ = coupling_R[:, n, row, column, down, right, t]
            total, weight = total + coupling_RJ[-1, winner] * cosine, weight + coupling_RJ[-1, winner]
            cosines.append(cosine)
            changed.append(coupling_RJ[1].argmax() != coupling_RJ[-1].argmax())
    assert (len(cosines) < N * windows**2 * kernel**2 * types) == (padding == "same")
    assert float(found["layer_0"].agreement) == pytest.approx(total / weight, rel=EXACT)
    assert float(found["layer_0"].agreement_of_all) == pytest.approx(np.mean(cosines), rel=EXACT)
    assert float(found["layer_0"].favourite_changed) == pytest.approx(np.mean(changed), rel=1e-6)  # a float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("algorithm", ["dynamic", "em", "inverted", "self_routing", "uniform", "random"])
def test_measures_are_within_their_bounds(algorithm: str, precision: str) -> None:
    fields = {**BASE, "model.routing.algorithm": algorithm, "model.primary.activation": "sigmoid"}
    config = with_overrides(RunConfig(), {**fields, "train.precision": precision})
    net = network.build(config.model, precision=precision)
    trace = net(tf.random.uniform([N, 12, 12, 1], seed=1), trace=True, coupling_records=2).traces["class_capsules"]
    found = observed.observe(net.class_capsules, trace)
    assert (found.winner_changed is None) == (algorithm == "self_routing")
    for share in (found.winner_changed, found.favourite_changed):
        assert share is None or 0 <= float(share) <= 1
    for cosine in (found.agreement, found.agreement_of_all):
        assert -1.001 <= float(cosine) <= 1.001  # but for rounding
