"""Mutual information of two tables, by any estimator: the function for notebooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import DEFAULT_MAX_BYTES, Estimate, flags_of
from ed_interp.probes.emergence.estimators.registry import get_estimator
from ed_interp.probes.emergence.estimators.rows import population_weights


def mutual_information(
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    estimator: str = "smoothed",
    seed: int = 0,
    level: float = 0.95,
    max_bytes: int = DEFAULT_MAX_BYTES,
    **options: Any,
) -> Estimate:
    """Information between two representations of the same rows, in bits, with an interval.

    Args:
        x: tensor or array ``row d_x``, floating point.
        y: tensor or array ``row d_y``.
        weights: frequencies of the rows; uniform by default.
        estimator: a name from ``available_estimators()``.
        seed: of the estimator's noise and of the bootstrap.
        level: coverage of the interval.
        max_bytes: working memory of the estimator.
        options: the estimator's own, such as ``noise``, ``beta`` or ``samples``. The noise of
            ``smoothed`` is per coordinate and its default supposes coordinates of unit scale: pass
            states through ``normalise`` first, or name the noise.

    Raises:
        InvalidInputError: tables that do not fit each other, NaN or infinite values, bad weights,
            integers, a single row, an option the estimator does not have.
        UnknownNameError: no such estimator.
    """
    first, second = _table(x, "x"), _table(y, "y")
    if len(first) != len(second):
        raise InvalidInputError(
            f"x has {len(first)} rows and y {len(second)}; row i of both must be the same prompt"
        )
    second = second.to(first.device)
    shares = None
    if weights is not None:
        shares = population_weights(torch.as_tensor(weights), (), len(first))
    found = get_estimator(estimator, **options).pair(
        first, second, weights=shares, seed=seed, max_bytes=max_bytes
    )
    bits, interval = float(found.bits[0]), found.intervals(level=level, seed=seed)
    counted = (found.weights > 0).to(first.device)
    low, high, limit = float(interval.low[0]), float(interval.high[0]), float(found.limit)
    flags = flags_of(
        bits=bits,
        ci_low=low,
        limit=limit,
        rows=int(counted.sum()),
        constant=any(bool((t[counted] == t[counted][0]).all()) for t in (first, second)),
        half_precision=any(t.element_size() < 4 for t in (first, second)),
        own=found.flags_at(0),
    )
    return Estimate(bits, low, high, limit, flags, found.terms[0], found.settings)


def _table(values: Any, name: str) -> Tensor:
    try:
        table = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} is no table of numbers: {error}") from error
    if table.ndim != 2:
        raise InvalidInputError(
            f"{name} needs the shape 'row d', found {tuple(table.shape)}; "
            "a single column is x[:, None]"
        )
    if not table.is_floating_point():
        raise InvalidInputError(
            f"{name} must be floating point, found {table.dtype}; convert it to float32"
        )
    return table
