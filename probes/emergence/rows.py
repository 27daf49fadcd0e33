"""Rows of an emergence curve: what was measured per block and shot count; information in bits."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class EmergenceRow:
    """Emergence of one block at one shot count."""

    layer: int
    """Block index, from 0: the information between its input and its output."""
    shots: int
    """Demonstrations before the query; for lists, entities; for windows of text, tokens."""
    emergence: float
    """E = macro - micro."""
    ci_low: float
    ci_high: float
    """Ends of the bootstrap interval of `emergence` over prompts."""
    macro: float
    """Information that the block passes on at the last token of the whole sequence."""
    micro: float
    """The same for each token fed alone, averaged over the tokens of the sequence."""
    limit: float
    """E of any noiseless network that keeps distinct inputs distinct: depends only on the data.

    E can exceed it, because noise also lowers the single-token term.
    """
    macro_limit: float
    """Entropy of the sequences, which `macro` cannot exceed in this sample."""
    untrained: float | None
    """E of the untrained twin (same architecture, fresh weights); None if it was not run."""
    flags: tuple[str, ...] = ()
    """Reasons to doubt this row; `EmergenceCurve.glossary()` says what each means."""


@dataclasses.dataclass(frozen=True, slots=True)
class BehaviourRow:
    """How well the model answers at one shot count, over the same prompts."""

    shots: int
    accuracy: float
    """Fraction of prompts whose whole answer is the greedy continuation."""
    ci_low: float
    ci_high: float
    """Ends of the bootstrap interval of `accuracy`."""
    logprob: float
    """Mean log-probability of the whole answer, in nats."""
    logprob_ci_low: float
    logprob_ci_high: float
    rank: float
    """Median rank of the answer's first token in the vocabulary; 1 is best."""
    chance: float
    """Accuracy of the best answer that ignores the query: the most common answer's frequency."""
    gain: float
    """Accuracy minus the accuracy at the fewest shots, paired by prompt."""
    gain_ci_low: float
    gain_ci_high: float
    n: int
    """Number of prompts."""


@dataclasses.dataclass(frozen=True, slots=True)
class ProfileRow:
    """Emergence of one block and shot count at one noise scale (see `noise_profile`)."""

    layer: int
    shots: int
    beta: float
    noise: float
    emergence: float
    macro: float
    micro: float


@dataclasses.dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Emergence of one block at one shot count by one estimator."""

    estimator: str
    layer: int
    shots: int
    emergence: float
    ci_low: float
    ci_high: float
    macro: float
    micro: float
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AgreementRow:
    """Rank correlation of two estimators over blocks and shots."""

    first: str
    second: str
    quantity: str
    """``emergence`` or ``macro``."""
    spearman: float | None
    """None where one of the two is constant, or fewer than 3 values were measured."""
    kendall: float | None
    values: int


FLAGS = {
    "fewer-prompts-than-answers": "fewer prompts than distinct answers: not every answer occurs",
    "processed-weights": "the weights were processed (folded or centred): not the raw stream",
}
"""Flags of the prompts and of the model; those of estimates are explained by the estimators."""
