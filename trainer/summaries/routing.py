"""From a look to values: is routing alive?

Axes: N observed records, I children, J parents, R routing iterations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import RunConfig
from trainer.summaries import tags
from trainer.summaries.look import LayerLook
from trainer.summaries.tags import Tag
from trainer.summaries.values import filled, histogram, scalar

DEAD, ON = 0.05, 0.5
"""Activations below the one on all observed records are those of a dead capsule, above the other of one always on."""


def layer_values(layer: str, look: LayerLook, config: RunConfig) -> list[Any]:
    """Of one capsule layer, from a look as NumPy arrays."""
    trace = look.trace
    iterations, parents = len(trace.entropy_R), trace.parents.activations_BN.shape[-1]
    known = {
        "layer": layer,
        "records": len(trace.parents.activations_BN),
        "coupling_records": trace.coupling_RNIJ.shape[1],
        "iterations": iterations,
        "parents": parents,
    }
    by_iteration = {tags.ENTROPY: trace.entropy_R, tags.EFFECTIVE_PARENTS: trace.effective_parents_R}
    if config.model.routing.leaky:
        by_iteration[tags.UNASSIGNED] = trace.unassigned_R
    values: list[Any] = []
    for tag, value_R in by_iteration.items():
        for iteration, value in enumerate(value_R, 1):
            values += scalar(filled(tag, iteration=iteration, **known), value)
    for tag, value in (
        (tags.DIVERGENCE, np.maximum(1 - trace.entropy_R[-1], 0)),  # an entropy of 1 may be rounded up
        (tags.WINNER_CHANGED, look.observed.winner_changed),
        (tags.FAVOURITE_CHANGED, look.observed.favourite_changed),
        (tags.AGREEMENT, look.observed.agreement),
        (tags.AGREEMENT_OF_ALL, look.observed.agreement_of_all),
        (tags.CHILD_GRADIENT, look.child_gradient),
        (tags.PARENT_GRADIENT, look.parent_gradient),
    ):
        values += [] if value is None else scalar(filled(tag, **known), value)
    for side, tag, activations_NX in (
        ("children", tags.CHILD_ACTIVATIONS, trace.children.activations_BN),
        ("parents", tags.PARENT_ACTIVATIONS, trace.parents.activations_BN),
    ):
        values += histogram(filled(tag, **known), activations_NX)
        if config.model.routing.algorithm != "inverted":  # whose activations are logits
            values += _extremes(side, activations_NX, known)
    return values


def _extremes(side: str, activations_NX: NDArray[Any], known: dict[str, Any]) -> list[Any]:
    preposition = {"children": "from", "parents": "to"}[side]
    shares: dict[Tag, Any] = {
        tags.DEAD: np.mean(activations_NX.max(axis=0) < DEAD),
        tags.SILENT: np.mean(activations_NX < DEAD),
        tags.ALWAYS_ON: np.mean(activations_NX.min(axis=0) > ON),
    }
    places = {"side": side, "preposition": preposition, "dead": DEAD, "on": ON, **known}
    return [value for tag, share in shares.items() for value in scalar(filled(tag, **places), share)]
