"""Intervals, paired tests and chance levels, which go with every reported number.

Everything works on arrays whose first axis is the row (a prompt); further axes are kept, so one
call serves all blocks and shot counts at once, with the same resamples for all of them. A seed
gives the same numbers on every machine. Cost of the resampling functions: one matrix product of
``resamples x row`` by ``row x rest``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ed_interp.errors import InvalidInputError, unknown

FloatArray = NDArray[np.float64]

# Cells of a resampling matrix held at a time (32 MB).
_CELLS = 4_000_000


class Interval(NamedTuple):
    """Both ends of an interval; arrays of the shape of what was estimated."""

    low: FloatArray
    high: FloatArray


class PairedDifference(NamedTuple):
    """Mean of ``a - b``, its bootstrap interval, and a two-sided sign-flip p-value."""

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray


def bootstrap_interval(
    values: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    statistic: str = "mean",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: array of shape ``row *rest``; the two ends have the shape ``rest``.
        weights: one weight per row (``row``), or weights that broadcast to ``values``; a resampled
            row brings its weight along. Only for the mean.
        statistic: ``mean`` or ``median``.
        level: coverage, between 0 and 1.
        resamples: number of bootstrap samples, drawn from ``seed``.
    """
    data = _rows(values, "values")
    _check_level(level)
    if resamples < 1:
        raise InvalidInputError(f"resamples must be 1 or greater, got {resamples}")
    if statistic not in ("mean", "median"):
        raise unknown("statistic", statistic, ("mean", "median"))
    if weights is not None and statistic != "mean":
        raise InvalidInputError("weights must go with statistic='mean', got 'median'; drop them")
    rows, flat = len(data), data.reshape(len(data), -1)
    weight = None if weights is None else _weights(weights, data)
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // rows)
    estimates: list[FloatArray] = []
    for start in range(0, resamples, size):
        drawn = rng.integers(rows, size=(min(size, resamples - start), rows))
        if statistic == "median":
            estimates.extend(np.median(flat[row], axis=0)[None] for row in drawn)
        else:
            estimates.append(_resampled_means(drawn, flat, weight))
    tail = 50 * (1 - level)
    # nan: a resample can be without a mean, see _resampled_means.
    low, high = np.nanpercentile(np.concatenate(estimates), [tail, 100 - tail], axis=0)
    return Interval(low.reshape(data.shape[1:]), high.reshape(data.shape[1:]))


def _resampled_means(
    drawn: NDArray[np.int64], flat: FloatArray, weight: FloatArray | None
) -> FloatArray:
    count, rows = drawn.shape
    # How often each resample holds each row, for all of them in one bincount: resample i counts
    # into its own stretch of `rows` cells, from i * rows on.
    offsets = drawn + np.arange(count)[:, None] * rows
    times = np.bincount(offsets.ravel(), minlength=count * rows).reshape(count, rows)
    counts = times.astype(np.float64)
    if weight is None:
        return np.asarray(counts @ flat / rows)
    total = counts @ weight
    # A resample without any row of positive weight has no mean; it is left out (NaN) rather than
    # counted as 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, counts @ (flat * weight) / total, np.nan))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    permutations: int = 9999,
    seed: int = 0,
) -> PairedDifference:
    """Compare two measurements of the same rows (two models on the same prompts).

    The p-value is that of the sign-flip test of a mean difference of 0: every sign pattern when
    ``2 ** row`` is at most ``permutations``, else that many random ones, counted as
    ``(hits + 1) / (permutations + 1)`` (Phipson and Smyth 2010), never 0.

    Args:
        a: array of shape ``row *rest``; so is ``b``.
        weights, level, resamples: of the interval, as in :func:`bootstrap_interval`.
        permutations: largest number of sign patterns of the test.
        seed: random seed.
    """
    first, second = _rows(a, "a"), _rows(b, "b")
    if first.shape != second.shape:
        raise InvalidInputError(
            f"a and b must have equal shapes, got {first.shape} and {second.shape}; align the two "
            "by prompt first"
        )
    if permutations < 1:
        raise InvalidInputError(f"permutations must be 1 or greater, got {permutations}")
    change = first - second
    rows, flat = len(change), change.reshape(len(change), -1)
    weight = np.full((rows, 1), 1.0) if weights is None else _weights(weights, change)
    share = flat * weight / weight.sum(0)
    mean = share.sum(0)
    ends = bootstrap_interval(change, weights=weights, level=level, resamples=resamples, seed=seed)
    # Patterns that tie with the observed one must count as hits. Sums in another order differ in
    # the last digits, hence the allowance.
    bar = np.abs(mean) - 1e-12 * np.abs(share).sum(0)
    hits = np.zeros(flat.shape[1])
    # The first test keeps 2**rows from becoming a number of a thousand digits.
    exact = rows < 60 and 2**rows <= permutations
    total = 2**rows if exact else permutations
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // rows)
    for start in range(0, total, size):
        count = min(size, total - start)
        if exact:
            # The numbers 0 to 2**rows - 1 in binary are all sign patterns.
            bits = (np.arange(start, start + count)[:, None] >> np.arange(rows)) & 1
        else:
            bits = rng.integers(2, size=(count, rows))
        hits += (np.abs((1.0 - 2.0 * bits) @ share) >= bar).sum(0)
    p_value = hits / total if exact else (hits + 1) / (total + 1)
    rest = change.shape[1:]
    return PairedDifference(mean.reshape(rest), *ends, p_value.reshape(rest))


def smallest_p(rows: int, *, permutations: int = 9999) -> float:
    """The smallest p-value that :func:`paired_difference` can return for so many rows."""
    patterns = 2.0 ** min(rows, 60)
    # Of all sign patterns, the observed one and its opposite always count.
    return 2 / patterns if patterns <= permutations else 1 / (permutations + 1)


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), by scipy."""
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInputError(
            f"successes must be from 0 to n, and n 1 or greater, got {successes} of {n}"
        )
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def chance_level(answers: Sequence[Hashable], weights: ArrayLike | None = None) -> float:
    """Accuracy of the best answer that ignores the query: the share of the most common one."""
    if len(answers) == 0:
        raise InvalidInputError("answers must hold at least one answer, got none")
    ones = np.ones(len(answers))
    share = ones if weights is None else _weights(weights, ones)[:, 0]
    totals: dict[Hashable, float] = {}
    for answer, part in zip(answers, share.tolist(), strict=True):
        totals[answer] = totals.get(answer, 0.0) + part
    return max(totals.values()) / float(share.sum())


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided p-value of McNemar's test (1947): two models right or wrong on the same rows.

    Only rows where exactly one is right count; given their number, each side is a fair coin.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise InvalidInputError(
            f"a and b must be boolean (right or wrong), got {first.dtype} and {second.dtype}"
        )
    if first.ndim != 1 or first.shape != second.shape:
        raise InvalidInputError(
            f"a and b must be vectors of one length, got shapes {first.shape} and {second.shape}"
        )
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(pvalues: ArrayLike) -> FloatArray:
    """P-values adjusted for a family of tests by Holm's step-down rule (1979), any shape."""
    family = np.asarray(pvalues, dtype=np.float64)
    flat = family.ravel()
    if not bool(np.all((flat >= 0) & (flat <= 1))):  # False for NaN too
        raise InvalidInputError("p-values must be from 0 to 1, got NaN or one outside")
    order = np.argsort(flat, kind="stable")
    stepped = flat[order] * (flat.size - np.arange(flat.size))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped)) if flat.size else stepped
    return adjusted.reshape(family.shape)


def _rows(values: ArrayLike, name: str) -> FloatArray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 0 or data.shape[0] == 0:
        raise InvalidInputError(f"{name} must have at least one row, got shape {data.shape}")
    if not bool(np.isfinite(data).all()):
        raise InvalidInputError(f"{name} must be finite, got NaN or infinity; drop those rows")
    return data


def _weights(weights: ArrayLike, data: NDArray[Any]) -> FloatArray:
    """Weights as ``row 1`` or ``row rest`` (flattened), checked."""
    weight = np.asarray(weights, dtype=np.float64)
    rows = len(data)
    if weight.ndim == 0 or weight.shape[0] != rows:
        raise InvalidInputError(
            f"weights must be one per row ({rows} rows), got shape {weight.shape}"
        )
    if not bool(np.isfinite(weight).all()) or bool((weight < 0).any()):
        raise InvalidInputError("weights must be finite and 0 or greater, got others")
    if bool((weight.reshape(rows, -1).sum(0) <= 0).any()):
        raise InvalidInputError("weights must not sum to zero, or no row would count")
    if weight.ndim == 1:
        return weight[:, None]
    try:
        return np.broadcast_to(weight, data.shape).reshape(rows, -1)
    except ValueError as error:
        raise InvalidInputError(
            f"weights must broadcast to the values ({data.shape}), got shape {weight.shape}"
        ) from error


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be above 0 and below 1, got {level}")
