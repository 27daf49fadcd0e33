"""Mutual information of two tables, by any estimator: the function for notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import DEFAULT_MAX_BYTES, check_pair, flags_of
from ed_interp.probes.emergence.estimators.registry import get_estimator
from ed_interp.probes.emergence.estimators.rows import population_weights
from ed_interp.progress import Progress


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mutual information of one pair of representations."""

    bits: float
    ci_low: float
    """Lower end of the bootstrap interval over rows, in bits."""
    ci_high: float
    limit: float
    """Entropy of the population in bits."""
    flags: tuple[str, ...]
    """Those of ``flags_of``, then the estimator's own; ``flag_meanings`` explains them."""
    terms: Float[Tensor, "row"]
    """Pointwise information of each row, in bits."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def mutual_information(
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    estimator: str = "smoothed",
    seed: int = 0,
    level: float = 0.95,
    max_bytes: int = DEFAULT_MAX_BYTES,
    folder: str | Path | None = None,
    progress: Progress = None,
    **settings: Any,
) -> Estimate:
    """Information between two representations of the same rows, in bits, with an interval.

    Args:
        x: Tensor or array ``row d_x``, floating point.
        y: Tensor or array ``row d_y``.
        weights: Frequencies of the rows; uniform by default.
        estimator: A name from ``available_estimators()``.
        seed: Random seed of the estimator and of the bootstrap.
        level: Confidence level of the interval.
        max_bytes: Working memory of the estimator.
        folder: Keep the state of a training there and resume from it.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.
        settings: The estimator's own options, such as ``noise``, ``beta`` or ``neighbours``. The
            noise of ``smoothed`` is per coordinate, and its default assumes coordinates of unit
            scale: pass states through ``normalise`` first, or give the noise.

    Raises:
        InvalidInputError: tables that do not fit each other, NaN or infinite values, bad weights,
            integers, a single row, an option the estimator does not have.
        UnknownNameError: no estimator has the name.
    """
    first, second = _tensor(x, "x"), _tensor(y, "y")
    check_pair(first, second)
    second = second.to(first.device)
    shares = None
    if weights is not None:
        shares = population_weights(torch.as_tensor(weights), (), len(first))
    chosen = get_estimator(estimator, **settings).reporting(progress).resuming(folder)
    result = chosen.pair(first, second, weights=shares, seed=seed, max_bytes=max_bytes)
    bits, interval = float(result.bits[0]), result.intervals(level=level, seed=seed)
    counted = (result.weights > 0).to(first.device)
    low, high, limit = float(interval.low[0]), float(interval.high[0]), float(result.limit)
    flags = flags_of(
        bits=bits,
        ci_low=low,
        limit=limit,
        rows=int(counted.sum()),
        constant=any(bool((t[counted] == t[counted][0]).all()) for t in (first, second)),
        half_precision=any(t.element_size() < 4 for t in (first, second)),
        own=result.flags_at(0),
    )
    return Estimate(bits, low, high, limit, flags, result.terms[0], result.settings)


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} must be a table of numbers: {error}") from error
