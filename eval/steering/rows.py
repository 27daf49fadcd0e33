"""Rows of the results of this room."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class SweepCell:
    """One place and strength, on the half of the samples that the choice is made on."""

    site: str
    coefficient: float
    change: float
    """Mean change of the score against no steering, in nats."""
    ci_low: float
    ci_high: float
    wrong_way: float
    """Share of samples whose score fell."""
    perplexity_ratio: float | None
    """Perplexity of the neutral text, steered at every token, over unsteered; None if infinite."""
    within_budget: bool


@dataclasses.dataclass(frozen=True, slots=True)
class SweepComparison:
    """Steering against one control, on the other half, paired by sample. Scores in nats."""

    control: str
    """``no steering``, ``random direction`` or ``prompt only``."""
    score: float
    """Mean score under the control."""
    difference: float
    """Mean score under steering minus under the control."""
    ci_low: float
    ci_high: float
    p_value: float
    """Two-sided, sign flips over samples."""
    p_holm: float
    """Adjusted for the three comparisons."""

    @property
    def beaten(self) -> bool:
        """Whether steering is better: the interval is above 0, and the adjusted p below 0.05."""
        # Both, as the interval alone takes no account of there being three controls.
        return self.ci_low > 0 and self.p_holm < 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote after a prompt."""

    text: str
    tokens: tuple[str, ...]
    """Each on its own, as the tokenizer shows it."""
    logprobs: tuple[float, ...]
    """Log-probability of each in nats, given everything before it, under the interventions that it
    was written with and before temperature."""


@dataclasses.dataclass(frozen=True, slots=True)
class SideBySide:
    """One prompt, continued twice."""

    prompt: str
    unsteered: Continuation
    steered: Continuation


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryRow:
    """One kind of vector and one seed; accuracies are means over relations."""

    vector: str
    seed: int
    zero_shot: float
    eight_shot: float
    accuracy: float
    """Without demonstrations, with the vector."""
    recovered: float
    """Share of the gap between zero and eight shots."""
    site: str
    coefficient: float


@dataclasses.dataclass(frozen=True, slots=True)
class RelationRow:
    """Accuracies on one relation and seed, with every head's vector in its own block."""

    relation: str
    seed: int
    zero_shot: float
    accuracy: float
    """Without demonstrations, with the vector."""
    eight_shot: float
