"""Self-consistency: what any estimator of mutual information owes, whatever the truth.

After Song and Ermon, "Understanding the limitations of variational mutual information estimators"
(ICLR 2020), who ask for independence, data processing and additivity; symmetry and growth with n
are added. Each check draws rows of its own, runs the estimator, and says what it found beside what
it should have found; ``allowed`` is the rule of the calibration (0.25 bits or 10%).

Cost: 9 estimates, at most of n rows and 2 times ``block`` columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators import get_estimator
from ed_interp.probes.emergence.truth import calibration_tasks
from ed_interp.progress import Progress, track

_ABSOLUTE_BITS = 0.25
_RELATIVE = 0.1
_SEED_OF_PERMUTATION = 11


@dataclasses.dataclass(frozen=True, slots=True)
class CheckRow:
    """One property: what was found, what it should be, and whether it holds. In bits."""

    check: str
    meaning: str
    found: float
    expected: float
    allowed: float
    """How far `found` may be from `expected`, or above it where only that is wrong."""
    holds: bool


def consistency(
    estimator: str,
    *,
    n: int = 2000,
    d: int = 8,
    bits: float = 2.0,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> tuple[CheckRow, ...]:
    """Run every check on one estimator, with Gaussian rows of ``bits`` true information.

    Args:
        estimator: a name from ``available_estimators()``.
        n: rows.
        d: columns of x and of y; two blocks of half as many for additivity.
        bits: information of each population.
        options: of the estimator.
        seed: of the rows and of the estimator.
        progress: True for a bar on stderr, or a callable.

    Raises:
        InvalidInputError: fewer than 2 columns or 16 rows.
        UnknownNameError: no such estimator.
    """
    if d < 2 or n < 16:
        raise InvalidInputError(f"the checks need d >= 2 and n >= 16, found d = {d}, n = {n}")
    chosen = get_estimator(estimator, **(options or {}))

    whole = calibration_tasks(d, bits=(0.0, bits), families=("gaussian",))
    half = calibration_tasks(d // 2, bits=(bits / 2,), families=("gaussian",))[0]
    apart = whole[0].sample(n, seed=seed)
    x, y = whole[1].sample(n, seed=seed + 1)
    first, second = half.sample(n, seed=seed + 2), half.sample(n, seed=seed + 3)
    rows: list[CheckRow] = []
    with track(progress, f"checking {estimator}", 10) as advance:

        def value(left: Tensor, right: Tensor) -> float:
            found = float(chosen.pair(left, right, seed=seed).bits[0])
            advance(1)
            return found

        order = torch.randperm(n, generator=torch.Generator().manual_seed(_SEED_OF_PERMUTATION))
        full = value(x, y)
        rows.append(_equal("independence", "independent x and y tell nothing", value(*apart), 0.0))
        rows.append(_equal("permutation", "rows of y in random order", value(x, y[order]), 0.0))
        rows.append(_equal("symmetry", "y tells of x what x tells of y", value(y, x), full))
        parts = value(*first) + value(*second)
        together = value(*(torch.cat(pair, 1) for pair in zip(first, second, strict=True)))
        rows.append(_equal("additivity", "independent blocks add up", together, parts))
        kept = value(x, y[:, : max(1, d // 2)])
        rows.append(_at_most("data processing", "half of y's columns tell no more", kept, full))
        rounded = value(x, torch.round(y * 2) / 2)
        rows.append(_at_most("coarse graining", "y rounded to halves tells no more", rounded, full))
        less = value(x[: n // 2], y[: n // 2])
        rows.append(_equal("growth with n", "half of the rows find the same", less, full))
        noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        rows.append(_at_most("noise", "noise on x does not tell more", value(noisy, y), full))
    return tuple(rows)


def _allowed(bits: float) -> float:
    return max(_ABSOLUTE_BITS, _RELATIVE * abs(bits))


def _equal(check: str, meaning: str, found: float, expected: float) -> CheckRow:
    room = _allowed(expected)
    return CheckRow(check, meaning, found, expected, room, abs(found - expected) <= room)


def _at_most(check: str, meaning: str, found: float, expected: float) -> CheckRow:
    room = _allowed(expected)
    return CheckRow(check, meaning, found, expected, room, found <= expected + room)
