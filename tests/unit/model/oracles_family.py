"""More algorithms from the papers' text, as loops over scalars in float64 NumPy.

Each gives (poses_BJQ, activations_BJ, coupling_RBIJ), one record at a time; child i has the transform i mod T.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size, R iterations.
"""

from __future__ import annotations

import numpy as np

from tests.unit.model.oracles import Array, softmax, squash

Routed = tuple[Array, Array, Array]


def votes(poses_IP: Array, transform_TPJQ: Array) -> list[list[Array]]:
    """u_hat of child i for parent j."""
    transforms, _, parents, _ = transform_TPJQ.shape
    return [
        [transform_TPJQ[i % transforms, :, j].T @ poses_IP[i] for j in range(parents)] for i in range(len(poses_IP))
    ]


def shares(b: list[float], leaky: bool) -> list[float]:
    """Softmax over parents, with a further one of logit 0 that is left out where ``leaky``."""
    return softmax([*b, 0.0])[:-1] if leaky else softmax(b)


def random_couplings(
    poses_BIP: Array, transform_TPJQ: Array, logits_IJ: Array, *, leaky: bool = False, bias_JQ: Array | None = None
) -> Routed:
    """Couplings that are the softmax of given logits."""
    batch, children, _ = poses_BIP.shape
    _, _, parents, pose = transform_TPJQ.shape
    poses_BJQ = np.zeros((batch, parents, pose))
    coupling_RBIJ = np.zeros((1, batch, children, parents))
    for n in range(batch):
        predicted = votes(poses_BIP[n], transform_TPJQ)
        for i in range(children):
            coupling_RBIJ[0, n, i] = shares(list(logits_IJ[i]), leaky)
        for j in range(parents):
            s = np.zeros(pose) if bias_JQ is None else bias_JQ[j].copy()
            for i in range(children):
                s = s + coupling_RBIJ[0, n, i, j] * predicted[i][j]
            poses_BJQ[n, j] = squash(s)
    return poses_BJQ, np.linalg.norm(poses_BJQ, axis=-1), coupling_RBIJ


def layer_norm(x_Q: Array, gain_Q: Array, shift_Q: Array, epsilon: float = 1e-5) -> Array:
    """Ba, Kiros, Hinton 2016, equation 4, over one pose."""
    mean = sum(x_Q) / len(x_Q)
    variance = sum((x - mean) ** 2 for x in x_Q) / len(x_Q)
    return gain_Q * (x_Q - mean) / np.sqrt(variance + epsilon) + shift_Q


def inverted_iteration(
    poses_IP: Array,
    parents_JQ: Array,
    transform_TPJQ: Array,
    gain_Q: Array,
    shift_Q: Array,
    *,
    leaky: bool = False,
    bias_JQ: Array | None = None,
    coupling_IJ: Array | None = None,
) -> tuple[Array, Array]:
    """Tsai et al. 2020, procedure 1, of one record: new parents and couplings, which may also be given."""
    children, (parents, pose) = len(poses_IP), parents_JQ.shape
    v = votes(poses_IP, transform_TPJQ)  # line 2
    if coupling_IJ is None:
        coupling_IJ = np.zeros((children, parents))
        for i in range(children):
            a = [float(parents_JQ[j] @ v[i][j]) for j in range(parents)]  # line 3
            coupling_IJ[i] = shares(a, leaky)  # line 4
    new_JQ = np.zeros((parents, pose))
    for j in range(parents):
        p = np.zeros(pose) if bias_JQ is None else bias_JQ[j].copy()
        for i in range(children):  # line 5
            p = p + coupling_IJ[i, j] * v[i][j]
        new_JQ[j] = layer_norm(p, gain_Q, shift_Q)  # line 6
    return new_JQ, coupling_IJ


def inverted(
    poses_BIP: Array,
    transform_TPJQ: Array,
    gain_Q: Array,
    shift_Q: Array,
    readout_Q: Array,
    readout_bias: Array,
    iterations: int,
    *,
    leaky: bool = False,
    bias_JQ: Array | None = None,
    last_coupling_BIJ: Array | None = None,
) -> Routed:
    """Procedure 1 again and again, with parents that are 0 at first (section 3), and the linear read-out.

    ``last_coupling_BIJ`` replaces the couplings of the last iteration.
    """
    batch, children, _ = poses_BIP.shape
    _, _, parents, pose = transform_TPJQ.shape
    out_BJQ = np.zeros((batch, parents, pose))
    activations_BJ = np.zeros((batch, parents))
    coupling_RBIJ = np.zeros((iterations, batch, children, parents))
    for n in range(batch):
        for r in range(iterations):
            held = last_coupling_BIJ is not None and r == iterations - 1
            out_BJQ[n], coupling_RBIJ[r, n] = inverted_iteration(
                poses_BIP[n],
                out_BJQ[n],
                transform_TPJQ,
                gain_Q,
                shift_Q,
                leaky=leaky,
                bias_JQ=bias_JQ,
                coupling_IJ=last_coupling_BIJ[n] if held else None,
            )
        for j in range(parents):
            activations_BJ[n, j] = readout_Q @ out_BJQ[n, j] + readout_bias[0]
    return out_BJQ, activations_BJ, coupling_RBIJ


def concurrent(
    poses_IP: Array, layers: list[tuple[Array, Array, Array]], iterations: int
) -> tuple[Array, list[list[Array]]]:
    """Procedure 2, of one record: class capsules, and couplings by layer and iteration.

    ``layers`` are (transform_TPJQ, gain_Q, shift_Q).
    """
    poses = [poses_IP]
    couplings: list[list[Array]] = []
    for transform_TPJQ, gain_Q, shift_Q in layers:  # first pass
        nothing_JQ = np.zeros(transform_TPJQ.shape[2:])
        parents_JQ, coupling_IJ = inverted_iteration(poses[-1], nothing_JQ, transform_TPJQ, gain_Q, shift_Q)
        poses.append(parents_JQ)
        couplings.append([coupling_IJ])
    for _ in range(1, iterations):
        new = [poses_IP]
        for at, layer in enumerate(layers):  # in parallel: all of them see the same poses
            parents_JQ, coupling_IJ = inverted_iteration(poses[at], poses[at + 1], *layer)
            new.append(parents_JQ)
            couplings[at].append(coupling_IJ)
        poses = new
    return poses[-1], couplings


def self_routing(
    poses_BIP: Array,
    activations_BI: Array,
    transform_TPJQ: Array,
    route_TPJ: Array,
    *,
    leaky: bool = False,
    bias_JQ: Array | None = None,
) -> Routed:
    """Hahn, Pyeon, Kim 2019, section 3: routing coefficients, activations and poses of the parents."""
    batch, children, _ = poses_BIP.shape
    transforms, _, parents, pose = transform_TPJQ.shape
    poses_BJQ = np.zeros((batch, parents, pose))
    activations_BJ = np.zeros((batch, parents))
    coupling_RBIJ = np.zeros((1, batch, children, parents))
    for n in range(batch):
        predicted = votes(poses_BIP[n], transform_TPJQ)
        for i in range(children):
            logits = [float(route_TPJ[i % transforms, :, j] @ poses_BIP[n, i]) for j in range(parents)]
            coupling_RBIJ[0, n, i] = shares(logits, leaky)
        for j in range(parents):
            sent = [coupling_RBIJ[0, n, i, j] * activations_BI[n, i] for i in range(children)]
            activations_BJ[n, j] = sum(sent) / sum(activations_BI[n])
            for i in range(children):
                poses_BJQ[n, j] += sent[i] / sum(sent) * predicted[i][j]
            if bias_JQ is not None:
                poses_BJQ[n, j] += bias_JQ[j]
    return poses_BJQ, activations_BJ, coupling_RBIJ


def squash_exponential(s_Q: Array) -> Array:
    """Mazzia et al. 2021, section 3, for one vector."""
    norm = np.sqrt(sum(x * x for x in s_Q))
    if norm == 0.0:
        return np.zeros_like(s_Q)
    return (1.0 - 1.0 / np.exp(norm)) * s_Q / norm


def self_attention(
    poses_BIP: Array,
    transform_TPJQ: Array,
    prior_IJ: Array,
    *,
    leaky: bool = False,
    bias_JQ: Array | None = None,
) -> Routed:
    """Mazzia, Salvetti, Chiaberge 2021, section 3: A = U U^T / sqrt(d) per parent, C, and s = U^T (C + B)."""
    batch, children, _ = poses_BIP.shape
    _, _, parents, pose = transform_TPJQ.shape
    poses_BJQ = np.zeros((batch, parents, pose))
    coupling_RBIJ = np.zeros((1, batch, children, parents))
    for n in range(batch):
        u = votes(poses_BIP[n], transform_TPJQ)
        attention = np.zeros((children, children, parents))
        for i in range(children):
            for k in range(children):
                for j in range(parents):
                    attention[i, k, j] = u[i][j] @ u[k][j] / np.sqrt(pose)
        for i in range(children):
            summed = [float(sum(attention[k, i, j] for k in range(children))) for j in range(parents)]
            coupling_RBIJ[0, n, i] = shares(summed, leaky) + prior_IJ[i]
        for j in range(parents):
            s = np.zeros(pose) if bias_JQ is None else bias_JQ[j].copy()
            for i in range(children):
                s = s + coupling_RBIJ[0, n, i, j] * u[i][j]
            poses_BJQ[n, j] = squash_exponential(s)
    return poses_BJQ, np.linalg.norm(poses_BJQ, axis=-1), coupling_RBIJ
