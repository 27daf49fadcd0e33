"""Each side by itself: normal coordinates, leading components, unit covariance.

Mutual information does not change under one-to-one maps of either side, so both are brought to the
form in which a Gaussian reference fits best and a critic trains best: every coordinate replaced by
the normal score of its rank (which makes monotone maps and heavy tails harmless), then turned to
the principal components and divided by their standard deviations. Only the leading components are
kept: that can lose information, never add any (data processing).

The maps are found from all rows of a side, held out or not, but never look at which x goes with
which y: what is held out is the pairing.
Cost: a sort of every column and one eigendecomposition of min(row, d) squared.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError, unknown

Marginals = Literal["normal", "raw"]

ROWS_PER_COMPONENT = 8
_LEAST = 1e-10
"""Share of the largest variance below which a component is rounding error."""


def check_marginals(name: str) -> None:
    """Raise :class:`UnknownNameError` for a name that is not one of ``Marginals``."""
    if name not in get_args(Marginals):
        raise unknown("marginals", name, get_args(Marginals))


def check_finite(x: Float[Tensor, "row d"], site: int) -> None:
    """Raise :class:`InvalidInputError` for NaN or infinite values."""
    good = torch.isfinite(x).all(1)
    if not bool(good.all()):
        raise InvalidInputError(
            f"{int((~good).sum())} of {len(x)} rows hold NaN or infinite values at site {site} "
            f"(the first is row {int((~good).nonzero()[0])}); drop these rows or find their cause"
        )


def white(
    x: Float[Tensor, "row d"],
    weights: Float[Tensor, "row"],
    *,
    components: int,
    marginals: Marginals,
) -> Float[Tensor, "row component"]:
    """White coordinates, float64, padded with zeros to ``components`` columns.

    Args:
        x: finite rows.
        weights: above 0, summing to 1, on the device of ``x``.
        components: width of the result. Used are at most as many as there are directions with
            variance, and one for every ``ROWS_PER_COMPONENT`` rows (by the effective number of
            rows, 1 / sum w^2).
        marginals: ``normal`` for normal scores, ``raw`` for the values as they are.
    """
    table = x.detach().double()
    table = normal_scores(table, weights) if marginals == "normal" else table
    table = table - weights @ table
    scaled = table * weights.sqrt()[:, None]
    rows, width = scaled.shape
    # The smaller of the two Gram matrices has all eigenvalues that are not 0.
    if width <= rows:
        variance, axes = torch.linalg.eigh(scaled.mT @ scaled)
    else:
        variance, left = torch.linalg.eigh(scaled @ scaled.mT)
        axes = scaled.mT @ (left / variance.clamp(min=torch.finfo(torch.float64).tiny).sqrt())
    effective = 1 / float(weights.square().sum())
    used = min(components, max(1, int(effective / ROWS_PER_COMPONENT + 1e-6)))
    variance, axes = variance.flip(0)[:used], axes.flip(1)[:, :used]
    kept = variance > _LEAST * variance[0].clamp(min=torch.finfo(torch.float64).tiny)
    found = table @ axes[:, kept] / variance[kept].sqrt()
    # The sign of an eigenvector is the library's choice; fixed here by the largest entry.
    largest = axes[:, kept].abs().argmax(0)
    found = found * axes[largest, torch.nonzero(kept)[:, 0]].sign()
    return torch.nn.functional.pad(found, (0, components - found.shape[1]))


def normal_scores(
    x: Float[Tensor, "row d"], weights: Float[Tensor, "row"]
) -> Float[Tensor, "row d"]:
    """Every column replaced by the normal quantile of its weighted mid-rank; ties share one."""
    columns = x.mT.contiguous()
    ordered, order = columns.sort(1)
    below = torch.nn.functional.pad(weights[order].cumsum(1), (1, 0))
    left = torch.searchsorted(ordered, columns, right=False)
    right = torch.searchsorted(ordered, columns, right=True)
    share = (below.gather(1, left) + below.gather(1, right)) / (2 * below[:, -1:])
    scores: Tensor = torch.special.ndtri(share)
    return scores.mT
