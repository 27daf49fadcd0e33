"""Rows of the results of this room."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class PreflightRow:
    """One site."""

    site: str
    auc: float
    """Held out: probability that a positive text lies further along than a negative one."""
    d_prime: float
    """Held out: distance of the class means along the direction, in pooled standard deviations."""
    agreement: float | None
    """Mean cosine between the differences of two pairs, -1 to 1; None without pairs."""
    stability: float
    """Mean cosine between mean differences of random halves, -1 to 1."""
    size: float
    """Length of the mean difference, relative to that of the states."""
