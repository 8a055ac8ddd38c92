"""The state that capsule networks die in, seen from one look.

With many parents, or with deep stacks, preactivations are so small that squash makes next to nothing of them: lengths
are near 0, so that agreement is, so that couplings stay uniform, so that nothing tells parents apart; and the margin
loss rests where all lengths are 0, at m+^2 (Sabour et al. 2017, equation 4: 0.81). The gradient there is near 0 too.

Axes: N observed records, J classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.config import RunConfig
from trainer.summaries import tags
from trainer.summaries.look import Look
from trainer.summaries.tags import Tag
from trainer.summaries.values import filled

UNIFORM = 0.9999  # entropy over its largest value; with 100 parents 0.9986 is alive (README's divergence)
SHORT = 0.05  # mean of the longest class capsule
RESTS = 0.02  # of m+^2, between the margin loss and it


@dataclass(frozen=True)
class Signs:
    """Each is None where it does not apply. ``words`` are those that are there, as a person says them."""

    uniform: bool | None
    short: bool | None
    resting: bool | None
    words: tuple[str, ...]

    @property
    def count(self) -> int:
        return sum(bool(sign) for sign in (self.uniform, self.short, self.resting))

    @property
    def possible(self) -> int:
        return sum(sign is not None for sign in (self.uniform, self.short, self.resting))

    @property
    def sentence(self) -> str:
        return "; ".join(self.words)

    @property
    def dead(self) -> bool:
        return self.possible > 0 and self.count == self.possible


def signs(look: Look, config: RunConfig) -> Signs:
    """From a look as NumPy arrays; those of the class capsules, and of the couplings of the layer that is worst off."""
    uniform = short = resting = None
    words = []
    iterates = [layer.trace.entropy_R for layer in look.layers.values() if len(layer.trace.entropy_R) > 1]
    if iterates:
        entropy = max(float(entropy_R[-1]) for entropy_R in iterates)
        uniform = entropy >= UNIFORM
        words += [f"couplings are uniform (entropy {entropy:.5f} of ln J)"] if uniform else []
    if look.layers and config.model.routing.algorithm != "inverted":  # whose activations are logits
        length = float(np.mean(np.max(look.outputs.class_scores_BJ, axis=-1)))
        short = length < SHORT
        words += [f"class capsules have no length (the longest {length:.2g})"] if short else []
    if look.layers and config.loss.kind == "margin":
        rest = config.objects * config.loss.margin_positive**2
        loss = float(look.loss)
        resting = abs(loss - rest) < RESTS * rest
        words += [f"margin loss rests at {loss:.3f}, that of lengths of 0"] if resting else []
    return Signs(uniform, short, resting, tuple(words))


def tag(config: RunConfig, found: Signs) -> Tag:
    margin = f", margin loss at rest at {config.objects * config.loss.margin_positive**2:g}"
    return filled(tags.ALARM, signs=found.possible, margin=margin if config.loss.kind == "margin" else "")
