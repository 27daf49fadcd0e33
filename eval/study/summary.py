"""Arms over seeds: means with intervals, and each control against the arm under test.

A seed is the unit: it changes the adapter's first weights and the order of the examples. Means get
Student's interval over seeds. Arms are paired by seed and compared by the paired t-test (few seeds
leave sign flips no power: 5 of them cannot go below p = 0.06), corrected by Holm over everything
compared. Cost: none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from ed_interp.eval.study.trials import TrialRow
from ed_interp.statistics import holm

LEVEL = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm and metric over seeds."""

    arm: str
    metric: str
    mean: float
    ci_low: float | None
    """Student's interval over seeds; None with one seed."""
    ci_high: float | None
    seeds: int
    difference: float | None = None
    """The arm under test minus this arm, paired by seed; None for the arm under test itself."""
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    """Paired t-test over seeds; None where fewer than 2 seeds are shared, or nothing varies."""
    p_holm: float | None = None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


METRICS: dict[str, Callable[[TrialRow], float | None]] = {
    "accuracy": lambda row: _mean(row.accuracy),
    "accuracy_change": lambda row: _mean(row.accuracy_change),
    "accuracy_fewest_shots": lambda row: row.accuracy[0] if row.accuracy else None,
    "logprob": lambda row: _mean(row.logprob),
    "logprob_change": lambda row: _mean(row.logprob_change),
    "forgetting": lambda row: row.forgetting,
    "divergence": lambda row: row.divergence,
    "harmed": lambda row: float(len(row.harmed)),
    "emergence_change": lambda row: row.emergence_change,
    "decode_ratio": lambda row: row.decode_ratio,
    "seconds": lambda row: row.seconds,
}
"""Metric -> its value in a trial; means over shot counts where a trial has one per shot count."""

COMPARED = ("accuracy", "logprob", "forgetting", "harmed")
"""Those that arms are tested on."""


def summarise(rows: Sequence[TrialRow], tested: str) -> tuple[ArmRow, ...]:
    """Every arm and metric of the compared trials; ``tested`` is the arm under test."""
    done = [row for row in rows if row.status == "done" and not row.sweep]
    arms = list(dict.fromkeys(row.arm for row in done))
    found = []
    for arm in arms:
        for metric in METRICS:
            own, reference = _values(done, arm, metric), _values(done, tested, metric)
            if own:
                found.append(_row(arm, metric, own, {} if arm == tested else reference))
    return _corrected(found)


def _values(rows: Sequence[TrialRow], arm: str, metric: str) -> dict[int, float]:
    pairs = ((row.seed, METRICS[metric](row)) for row in rows if row.arm == arm)
    return {seed: value for seed, value in pairs if value is not None}


def _row(arm: str, metric: str, own: dict[int, float], reference: dict[int, float]) -> ArmRow:
    mean, low, high = _interval(list(own.values()))
    row = ArmRow(arm, metric, mean, low, high, len(own))
    if not reference or metric not in COMPARED:
        return row
    # What does not depend on the seed (the frozen model) is there once, and pairs with every seed.
    alone = next(iter(own.values())) if len(own) == 1 else None
    change = [
        value - other
        for seed, value in reference.items()
        if (other := own.get(seed, alone)) is not None
    ]
    if not change:
        return row
    difference, low, high = _interval(change)
    p_value = None
    if len(change) > 1 and float(np.ptp(change)) > 0:
        p_value = float(stats.ttest_1samp(change, 0.0).pvalue)
    return dataclasses.replace(
        row, difference=difference, difference_low=low, difference_high=high, p_value=p_value
    )


def _interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * float(np.std(values, ddof=1))
    half /= math.sqrt(len(values))
    return mean, mean - half, mean + half


def _corrected(rows: Sequence[ArmRow]) -> tuple[ArmRow, ...]:
    places = [place for place, row in enumerate(rows) if row.p_value is not None]
    if not places:
        return tuple(rows)
    adjusted = holm([rows[place].p_value or 0.0 for place in places])
    found = list(rows)
    for place, value in zip(places, adjusted, strict=True):
        found[place] = dataclasses.replace(rows[place], p_holm=float(value))
    return tuple(found)
