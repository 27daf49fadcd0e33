"""Self-consistency: properties that any estimator of mutual information should have.

After Song and Ermon, "Understanding the limitations of variational mutual information estimators"
(ICLR 2020), who test independence, data processing and additivity; symmetry and growth with n are
added. Each check draws its own rows, runs the estimator, and compares the estimate with what it
should be; ``allowed`` is the rule of the calibration (0.25 bits or 10%).

Cost: 10 estimates, at most of n rows and d columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.calibration.rows import CheckRow, allowed
from ed_interp.probes.emergence.estimators.base import Estimator
from ed_interp.probes.emergence.truth import calibration_tasks
from ed_interp.progress import Progress, track

_SEED_OF_PERMUTATION = 11


def consistency(
    estimator: Estimator,
    *,
    n: int = 2000,
    d: int = 8,
    bits: float = 2.0,
    seed: int = 0,
    progress: Progress = None,
) -> tuple[CheckRow, ...]:
    """Run every check on one estimator, with Gaussian rows of ``bits`` true information.

    Args:
        estimator: From ``get_estimator``.
        n: Number of rows.
        d: Columns of x and of y; half as many in each of the two blocks for additivity.
        bits: Information of each population.
        seed: Seed of the rows and of the estimator.
        progress: True for a bar on stderr, or a callable.

    Raises:
        InvalidInputError: fewer than 2 columns or 16 rows.
    """
    if d < 2 or n < 16:
        raise InvalidInputError(
            f"d must be 2 or greater and n 16 or greater for the checks, got d = {d} and n = {n}; "
            "leave the checks out"
        )
    independent, dependent = calibration_tasks(d, bits=(0.0, bits), families=("gaussian",))
    half = calibration_tasks(d // 2, bits=(bits / 2,), families=("gaussian",))[0]
    apart = independent.sample(n, seed=seed)
    # Samples are drawn with seeds of their own: equal seeds would share rows between them.
    x, y = dependent.sample(n, seed=seed + 1)
    first, second = half.sample(n, seed=seed + 2), half.sample(n, seed=seed + 3)
    rows: list[CheckRow] = []
    with track(progress, f"checking {estimator.name}", 10) as advance:

        def value(left: Tensor, right: Tensor) -> float:
            estimate = float(estimator.pair(left, right, seed=seed).bits[0])
            advance(1)
            return estimate

        order = torch.randperm(n, generator=torch.Generator().manual_seed(_SEED_OF_PERMUTATION))
        # The same rows as they are: what most checks below compare with.
        full = value(x, y)
        rows.append(_equal("independence", "independent x and y share nothing", value(*apart), 0.0))
        rows.append(_equal("permutation", "rows of y in random order", value(x, y[order]), 0.0))
        rows.append(_equal("symmetry", "x and y exchanged", value(y, x), full))
        parts = value(*first) + value(*second)
        whole = value(*(torch.cat(pair, 1) for pair in zip(first, second, strict=True)))
        rows.append(_equal("additivity", "independent blocks add up", whole, parts))
        kept = value(x, y[:, : max(1, d // 2)])
        rows.append(_at_most("data processing", "half of y's columns hold no more", kept, full))
        # A function of y holds no more of x than y itself (data processing), whatever it is.
        rounded = value(x, torch.round(y * 2) / 2)
        rows.append(_at_most("coarse graining", "y rounded to halves holds no more", rounded, full))
        less = value(x[: n // 2], y[: n // 2])
        rows.append(_equal("growth with n", "half of the rows give the same", less, full))
        noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        rows.append(_at_most("noise", "noise on x adds nothing", value(noisy, y), full))
    return tuple(rows)


def _equal(check: str, meaning: str, estimate: float, expected: float) -> CheckRow:
    room = allowed(expected)
    return CheckRow(check, meaning, estimate, expected, room, abs(estimate - expected) <= room)


def _at_most(check: str, meaning: str, estimate: float, expected: float) -> CheckRow:
    room = allowed(expected)
    return CheckRow(check, meaning, estimate, expected, room, estimate <= expected + room)
