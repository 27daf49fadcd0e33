"""Scoring explanations of features without a judge model."""

from ed_interp.probes.dictionaries.interpretation.explaining import (
    Examples,
    Explainer,
    Explanation,
    by_tokens,
)
from ed_interp.probes.dictionaries.interpretation.scoring import (
    InterpretationRow,
    Interpretations,
    score_explanations,
)

__all__ = [
    "Examples",
    "Explainer",
    "Explanation",
    "InterpretationRow",
    "Interpretations",
    "by_tokens",
    "score_explanations",
]
