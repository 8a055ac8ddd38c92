"""EM routing from the paper's text, as loops in float64 NumPy over pairs of a child and a parent that it can reach.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tests.unit.model.oracles import Array

Pair = tuple[int, int]


class Found(NamedTuple):
    """By parent, and by iteration and pair."""

    means: dict[int, Array]
    activations: dict[int, float]
    assignments: list[dict[Pair, float]]


def em_routing(
    vote: dict[Pair, Array],
    activation: dict[int, float],
    beta_activation: dict[int, float],
    beta_cost: dict[int, float],
    iterations: int,
    *,
    inverse_temperature: float,
    decay: float,
    leaky: bool = False,
    variance_floor: float = 1e-2,
    last_assignment: dict[Pair, float] | None = None,
) -> Found:
    """Procedure 1 of Hinton, Sabour, Frosst 2018 for one record.

    ``vote`` has V_ij for each child i and parent j that i can reach, and nothing else. The cost is taken per number of
    a pose and per child that a parent has on average, variances have a floor. Where ``leaky`` a child can also be
    assigned to none of the parents, as probable as a vote at the mean of a parent with a_j = 1 and sigma = 1.
    ``last_assignment`` replaces R_ij of the last iteration.
    """
    reached = {i: [j for (k, j) in vote if k == i] for i in activation}
    seen = {j: [i for (i, k) in vote if k == j] for j in beta_cost}
    children_per_parent = len(activation) / len(beta_cost)
    pose = len(next(iter(vote.values())))
    assignment = {(i, j): 1.0 / (len(reached[i]) + leaky) for i, j in vote}
    mean: dict[int, Array] = {}
    presence: dict[int, float] = {}
    history = []
    for t in range(1, iterations + 1):
        if t == iterations and last_assignment is not None:
            assignment = last_assignment
        history.append(assignment)
        scale = inverse_temperature * (1.0 - decay**t)
        deviation: dict[int, Array] = {}
        for j in beta_cost:  # M step
            r = {i: assignment[i, j] * activation[i] for i in seen[j]}
            total = sum(r.values())
            mean[j] = sum(r[i] * vote[i, j] for i in seen[j]) / total
            variance = sum(r[i] * (vote[i, j] - mean[j]) ** 2 for i in seen[j]) / total
            deviation[j] = np.sqrt(variance + variance_floor)
            cost = [(beta_cost[j] + np.log(deviation[j][h])) * total for h in range(pose)]
            presence[j] = 1.0 / (1.0 + np.exp(-scale * (beta_activation[j] - sum(cost) / pose / children_per_parent)))
        assignment = {}
        for i in activation:  # E step
            weight = {}
            for j in reached[i]:
                exponent = sum((vote[i, j][h] - mean[j][h]) ** 2 / (2.0 * deviation[j][h] ** 2) for h in range(pose))
                p = np.exp(-exponent) / np.sqrt(np.prod(2.0 * np.pi * deviation[j] ** 2))
                weight[j] = presence[j] * p
            none = (2.0 * np.pi) ** (-pose / 2) if leaky else 0.0
            for j in reached[i]:
                assignment[i, j] = weight[j] / (sum(weight.values()) + none)
    return Found(mean, presence, history)


def full(
    poses_BIP: Array,
    activations_BI: Array,
    transform_TPJQ: Array,
    beta_activation_J: Array,
    beta_cost_J: Array,
    iterations: int,
    *,
    bias_JQ: Array | None = None,
    last_coupling_BIJ: Array | None = None,
    **options,
) -> tuple[Array, Array, Array]:
    """Every child reaches every parent; child i has the transform i mod T: (poses_BJQ, activations_BJ, R_RBIJ)."""
    batch, children, _ = poses_BIP.shape
    transforms, _, parents, pose = transform_TPJQ.shape
    poses_BJQ, activations_BJ = np.zeros((batch, parents, pose)), np.zeros((batch, parents))
    coupling_RBIJ = np.zeros((iterations, batch, children, parents))
    pairs = list(itertools.product(range(children), range(parents)))
    for n in range(batch):
        held = None if last_coupling_BIJ is None else {(i, j): last_coupling_BIJ[n, i, j] for i, j in pairs}
        found = em_routing(
            {(i, j): transform_TPJQ[i % transforms, :, j].T @ poses_BIP[n, i] for i, j in pairs},
            dict(enumerate(activations_BI[n])),
            dict(enumerate(beta_activation_J)),
            dict(enumerate(beta_cost_J)),
            iterations,
            last_assignment=held,
            **options,
        )
        for j in range(parents):
            poses_BJQ[n, j] = found.means[j] + (0.0 if bias_JQ is None else bias_JQ[j])
            activations_BJ[n, j] = found.activations[j]
        for r, (i, j) in itertools.product(range(iterations), pairs):
            coupling_RBIJ[r, n, i, j] = found.assignments[r][i, j]
    return poses_BJQ, activations_BJ, coupling_RBIJ


def convolutional(
    poses_HWTP: Array,
    activations_HWT: Array,
    transform_KTPJQ: Array,
    beta_activation_J: Array,
    beta_cost_J: Array,
    iterations: int,
    windows: list[list[tuple[int, int] | None]],
    **options,
) -> tuple[Array, Array, Array]:
    """Parents of each window over its positions, for one record: (poses_NJQ, activations_NJ, R_RNKTJ).

    A child competes for all parents of all windows that it is in. ``windows`` has the K positions that each sees, None
    where there is none; the transform depends on the offset in the window. R is 0 where there is no child.
    """
    height, width, types, _ = poses_HWTP.shape
    offsets, _, _, parents, pose = transform_KTPJQ.shape
    child = {at: number for number, at in enumerate(np.ndindex(height, width, types))}
    vote, place = {}, {}
    for (n, seen), k, t, j in itertools.product(enumerate(windows), range(offsets), range(types), range(parents)):
        if seen[k] is not None:
            pair = child[(*seen[k], t)], n * parents + j
            vote[pair] = transform_KTPJQ[k, t, :, j].T @ poses_HWTP[(*seen[k], t)]
            place[pair] = n, k, t, j
    reaching = {i for i, _ in vote}
    found = em_routing(
        vote,
        {i: activations_HWT[at] for at, i in child.items() if i in reaching},
        {n * parents + j: beta_activation_J[j] for n in range(len(windows)) for j in range(parents)},
        {n * parents + j: beta_cost_J[j] for n in range(len(windows)) for j in range(parents)},
        iterations,
        **options,
    )
    poses_NJQ = np.array([found.means[number] for number in range(len(windows) * parents)])
    activations_NJ = np.array([found.activations[number] for number in range(len(windows) * parents)])
    assignment_RNKTJ = np.zeros((iterations, len(windows), offsets, types, parents))
    for r, (pair, at) in itertools.product(range(iterations), place.items()):
        assignment_RNKTJ[(r, *at)] = found.assignments[r][pair]
    return (
        poses_NJQ.reshape(len(windows), parents, pose),
        activations_NJ.reshape(len(windows), parents),
        assignment_RNKTJ,
    )
