"""The papers' text as loops over scalars in float64 NumPy: slow, and hard to get wrong in the same way.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def squash(s_Q: Array) -> Array:
    """Sabour et al. 2017, equation 1, for one vector."""
    norm = np.sqrt(sum(x * x for x in s_Q))
    if norm == 0.0:
        return np.zeros_like(s_Q)
    return norm**2 / (1.0 + norm**2) * s_Q / norm


def softmax(b: list[float]) -> list[float]:
    top = max(b)
    exponentials = [np.exp(x - top) for x in b]
    return [x / sum(exponentials) for x in exponentials]


def dynamic_routing(
    poses_BIP: Array,
    transform_TPJQ: Array,
    iterations: int,
    *,
    leaky: bool = False,
    bias_JQ: Array | None = None,
    last_coupling_BIJ: Array | None = None,
    agreement: str = "dot",
    temperature: float = 1.0,
) -> tuple[Array, Array]:
    """Procedure 1 of Sabour et al. 2017, one record at a time: (poses_BJQ, coupling_RBIJ).

    ``agreement`` "cosine" puts the cosine in the place of the product in line 7, ``temperature`` divides the logits.

    Child i has the transform i mod T. ``last_coupling_BIJ`` replaces the couplings of the last iteration.
    """
    batch, children, _ = poses_BIP.shape
    transforms, _, parents, pose = transform_TPJQ.shape
    out_BJQ = np.zeros((batch, parents, pose))
    coupling_RBIJ = np.zeros((iterations, batch, children, parents))
    for n in range(batch):
        votes = [
            [transform_TPJQ[i % transforms, :, j].T @ poses_BIP[n, i] for j in range(parents)] for i in range(children)
        ]
        b = [[0.0] * parents for _ in range(children)]  # line 2
        for r in range(iterations):  # line 3
            for i in range(children):  # line 4
                shares = softmax([*b[i], 0.0])[:-1] if leaky else softmax(b[i])
                coupling_RBIJ[r, n, i] = shares
            if last_coupling_BIJ is not None and r == iterations - 1:
                coupling_RBIJ[r, n] = last_coupling_BIJ[n]
            for j in range(parents):
                s = np.zeros(pose) if bias_JQ is None else bias_JQ[j].copy()
                for i in range(children):  # line 5
                    s = s + coupling_RBIJ[r, n, i, j] * votes[i][j]
                out_BJQ[n, j] = squash(s)  # line 6
            for i in range(children):  # line 7
                for j in range(parents):
                    product = float(votes[i][j] @ out_BJQ[n, j])
                    if agreement == "cosine":
                        product /= np.linalg.norm(votes[i][j]) * np.linalg.norm(out_BJQ[n, j])
                    b[i][j] += product / temperature
    return out_BJQ, coupling_RBIJ


def finite_difference(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences: error about step^2 in the formula and 1e-16 / step in rounding, both 1e-10 or less."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        above, below = at.copy(), at.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2.0 * step)
    return gradient
