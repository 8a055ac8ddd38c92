"""Initial values. Seeds are a function of the run's seed and the layer's name, whatever else is built."""

from __future__ import annotations

import hashlib
import math

import keras

from trainer.config import Precision
from trainer.model.routing import LayerSizes

POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def layer_seed(seed: int, name: str) -> int:
    """A 31-bit seed for the layer ``name``."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little") >> 1


def policy(precision: Precision) -> str:
    """Keras's name for a precision: half precisions keep their variables in float32."""
    return POLICIES.get(precision, precision)


def he_normal(seed: int, name: str) -> keras.initializers.Initializer:
    """For layers followed by a ReLU (He et al. 2015)."""
    return keras.initializers.HeNormal(seed=layer_seed(seed, name))


def glorot(seed: int, name: str) -> keras.initializers.Initializer:
    """For layers without a ReLU (Glorot and Bengio 2010)."""
    return keras.initializers.GlorotUniform(seed=layer_seed(seed, name))


TRUNCATED = 0.8796256610342398  # standard deviation of a unit normal that is cut off at two of its own


def truncated_normal(stddev: float, seed: int, name: str) -> keras.initializers.Initializer:
    """With ``stddev`` after truncation."""
    return keras.initializers.TruncatedNormal(stddev=stddev / TRUNCATED, seed=layer_seed(seed, name))


LONGEST_START = 1 / 3  # length of a parent's preactivation s at first; squashed 0.1, which is m- of the margin loss
AGREEMENT_AT_START = 0.02  # what agreement adds to a parent in an iteration, over what it has
CHILD_SQUARE = 0.5  # squared length of a child at first: 0.48 to 0.68 on average in the recipes' networks


def parents_start(sizes: LayerSizes) -> float:
    """|s|, the length of a parent's preactivation before routing decides anything.

    Votes have the length J sqrt(T) / I |s| (see ``parents_stddev``), which grows with J. What a parent of length |s|^2
    gains from their agreement in an iteration, over what it has, is then about J |s|^3 T / (Q I). Where that is not
    small, a few parents run away with all children before anything is learned.
    """
    positions = sizes.children / sizes.transforms
    row = sizes.pose / sizes.rows
    return min(LONGEST_START, (AGREEMENT_AT_START * row * positions / sizes.parents) ** (1 / 3))


def parents_stddev(sizes: LayerSizes) -> float:
    """Standard deviation of a transform's entries with which parents start with |s| = ``parents_start``.

    With uniform couplings s_j = 1/J sum_i W_ij u_i. Entries of variance sigma^2 make that, in expectation,
    |s_j|^2 = sigma^2 Q / J^2 sum_t |sum_n u_tn|^2, where the sum over n is over the N = I/T positions that share W_t.
    At first the poses of a type are much alike at all positions (the sum has 0.55 to 0.83 of the square that it would
    have if they were the same), so that it is about N^2 |u|^2, and

        sigma = J / I sqrt(T / (Q |u|^2)) |s|, with Q the length of a row where poses are matrices.

    The authors' 0.1 (Sabour et al. 2017) is what this gives for their network with |s| = 1. With it |s| falls as 1/J.

    Seen before training, in the networks of quick and imagenet with 10, 100 and 1,000 classes, full, shared and
    low-rank transforms, after three iterations: mean length 0.006 to 0.12, the longest 0.02 to 0.23, entropy of
    couplings 0.9996 to 1. Fixed: mean length 0.1 at J = 10, 0.001 at 100, 1e-5 to 4e-4 at 1,000. |s| = 1/3 at any size:
    the longest 1.0, entropy down to 0.08.
    """
    votes_square = sizes.pose / sizes.rows * CHILD_SQUARE  # over sigma^2
    return parents_start(sizes) * sizes.parents / sizes.children * math.sqrt(sizes.transforms / votes_square)


def stacked_stddev(sizes: LayerSizes, *, by_length: bool) -> float:
    """Standard deviation with which capsules neither die nor saturate, however many layers stand on one another.

    By length: I children of length u with uniform couplings give |s|^2 = I Q (sigma u / J)^2 in the mean, with Q the
    length of a row where poses are matrices. With |s| = 2.6 u, lengths above 0.18 move towards 0.82 from layer to
    layer; |s| = 2 u is the least that does not end at 0, as |squash(s)| = |s|^2 / (1 + |s|^2).
    Otherwise a mean of votes has the size of the children's poses, if as many as sqrt(I) of I children count in it.
    """
    if by_length:
        return 2.6 * sizes.parents / math.sqrt(sizes.children * sizes.pose // sizes.rows)
    return math.sqrt(math.sqrt(sizes.children) * sizes.rows / sizes.child_pose)
