"""Rows of feature emergence, as they are written to files."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureEmergenceRow:
    """One checkpoint and shot count."""

    step: int | None
    """Training step of the checkpoint; None for the trained model."""
    shots: int
    active: int
    """Features that are active at the last token of at least 1% of the prompts."""
    l0: float
    """Features active at the last token, mean over prompts."""
    informative: int
    """Features whose activity informs about the label, at a family-wise 5% level."""
    new: tuple[int, ...]
    """Informative features that were not at any lower shot count of the same checkpoint."""
    top: tuple[tuple[int, float], ...]
    """The most informative features, with their information in bits."""
    best_bits: float
    """Information of the most informative feature, in bits."""
    fvu: float
    """Fraction of variance unexplained of these states; near 1 or above, the dictionary does not
    describe the model at this checkpoint."""
