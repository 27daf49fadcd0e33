"""Rows of a calibration and the rule by which an estimate is right. Information is in bits.

The rule: the median over seeds is within 0.25 bits or 10% of the truth, whichever is more.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

ABSOLUTE_BITS = 0.25
RELATIVE = 0.1
RULE = f"the median over seeds is within {ABSOLUTE_BITS:g} bits or {RELATIVE:.0%} of the truth"


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One population: its mutual information, and the estimate of it."""

    population: str
    family: str
    truth: float
    """Mutual information of the population, through the estimator's own noise where it has one."""
    truth_error: float
    """Standard error of `truth`; 0 for a closed form."""
    estimate: float
    """Median over seeds."""
    low: float
    """Least over seeds."""
    high: float
    """Most over seeds."""
    covered: float
    """Fraction of the seeds whose 95% interval holds the truth."""
    seconds: float
    """Median time of one estimate."""
    right: bool
    """Whether the rule of the module holds."""
    flags: tuple[str, ...] = ()
    """Flags that the estimate carried for some seed."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckRow:
    """One property that every estimator should have, and whether it holds."""

    check: str
    meaning: str
    estimate: float
    expected: float
    allowed: float
    """How far `estimate` may be from `expected`, or above it where only that is wrong."""
    holds: bool


def allowed(truth: float) -> float:
    """The error that the rule allows at a true value."""
    return max(ABSOLUTE_BITS, RELATIVE * abs(truth))


def is_right(estimate: float, truth: float) -> bool:
    """Whether the rule holds."""
    return abs(estimate - truth) <= allowed(truth)


def bands_of(rows: Sequence[CalibrationRow]) -> dict[str, float | None]:
    """Per family the largest true value up to which every estimate is right; None for none."""
    bands: dict[str, float | None] = {}
    by_truth = sorted(rows, key=lambda row: row.truth)
    for family in dict.fromkeys(row.family for row in rows):
        own = [row for row in by_truth if row.family == family]
        # An estimate that is right again beyond a gap is so by chance.
        good = list(itertools.takewhile(lambda row: row.right, own))
        bands[family] = good[-1].truth if good else None
    return bands
