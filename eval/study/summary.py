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
from typing import Any

import numpy as np
from scipy import stats

from ed_interp.eval.study.rows import ArmRow, TrialRow
from ed_interp.statistics import holm

LEVEL = 0.95


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
"""Metric -> its value in a trial: the mean over shot counts if there is one per shot count."""

COMPARED = ("accuracy", "logprob", "forgetting", "harmed")
"""The metrics that arms are tested on."""


def summarise(rows: Sequence[TrialRow], tested: str) -> tuple[ArmRow, ...]:
    """Every arm and metric of the compared trials; ``tested`` is the arm under test."""
    done = [row for row in rows if row.status == "done" and not row.sweep]
    result = []
    for arm in dict.fromkeys(row.arm for row in done):
        for metric in METRICS:
            own, reference = _values(done, arm, metric), _values(done, tested, metric)
            if own:
                result.append(_row(arm, metric, own, {} if arm == tested else reference))
    # Only rows with a test are part of the family.
    adjusted = iter(holm([row.p_value for row in result if row.p_value is not None]))
    return tuple(
        row if row.p_value is None else dataclasses.replace(row, p_holm=float(next(adjusted)))
        for row in result
    )


def _values(rows: Sequence[TrialRow], arm: str, metric: str) -> dict[int, float]:
    pairs = ((row.seed, METRICS[metric](row)) for row in rows if row.arm == arm)
    return {seed: value for seed, value in pairs if value is not None}


def _row(arm: str, metric: str, own: dict[int, float], reference: dict[int, float]) -> ArmRow:
    row = ArmRow(arm, metric, *_interval(list(own.values())), len(own))
    if metric not in COMPARED:
        return row
    # An arm that does not depend on the seed (the frozen model) has one trial, which pairs with
    # every seed of the arm under test.
    only = next(iter(own.values())) if len(own) == 1 else None
    change = [
        value - other
        for seed, value in reference.items()
        if (other := own.get(seed, only)) is not None
    ]
    if not change:
        return row
    names = ("difference", "difference_low", "difference_high")
    tested: dict[str, Any] = dict(zip(names, _interval(change), strict=True))
    # The t-test of differences without any spread would divide by zero.
    if len(change) > 1 and float(np.ptp(change)) > 0:
        tested["p_value"] = float(stats.ttest_1samp(change, 0.0).pvalue)
    return dataclasses.replace(row, **tested)


def _interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * float(np.std(values, ddof=1))
    half /= math.sqrt(len(values))
    return mean, mean - half, mean + half
