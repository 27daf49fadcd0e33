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

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Marginals = Literal["normal", "raw"]

ROWS_PER_COMPONENT = 8
# Share of the largest variance below which a component is rounding error.
_LEAST = 1e-10


def white(
    x: Float[Tensor, "row d"],
    weights: Float[Tensor, "row"],
    *,
    components: int,
    marginals: Marginals,
) -> Float[Tensor, "row component"]:
    """White coordinates, float64, padded with zeros to ``components`` columns.

    Args:
        x: Finite rows.
        weights: Above 0, summing to 1, on the device of ``x``.
        components: Width of the result. At most as many are used as there are directions with
            variance, and one for every ``ROWS_PER_COMPONENT`` rows (by the effective number of
            rows, 1 / sum w^2).
        marginals: ``normal`` for normal scores, ``raw`` for the values as they are.
    """
    table = x.detach().double()
    if marginals == "normal":
        table = normal_scores(table, weights)
    table = table - weights @ table
    scaled = table * weights.sqrt()[:, None]
    rows, width = scaled.shape
    # The smaller of the two Gram matrices has all eigenvalues that are not 0.
    narrow, tiny = width <= rows, torch.finfo(torch.float64).tiny
    variance, axes = torch.linalg.eigh(scaled.mT @ scaled if narrow else scaled @ scaled.mT)
    if not narrow:
        axes = scaled.mT @ (axes / variance.clamp(min=tiny).sqrt())
    effective = 1 / float(weights.square().sum())
    used = min(components, max(1, int(effective / ROWS_PER_COMPONENT + 1e-6)))
    variance, axes = variance.flip(0)[:used], axes.flip(1)[:, :used]  # the largest first
    kept = variance > _LEAST * variance[0].clamp(min=tiny)
    scores = table @ axes[:, kept] / variance[kept].sqrt()
    # The sign of an eigenvector is the library's choice; fixed here by the largest entry.
    largest = axes[:, kept].abs().argmax(0)
    scores = scores * axes[largest, torch.nonzero(kept)[:, 0]].sign()
    return torch.nn.functional.pad(scores, (0, components - scores.shape[1]))


def normal_scores(
    x: Float[Tensor, "row d"], weights: Float[Tensor, "row"]
) -> Float[Tensor, "row d"]:
    """Every column replaced by the normal quantile of its weighted mid-rank; ties share one."""
    columns = x.mT.contiguous()
    ordered, order = columns.sort(1)
    # below[i]: the weight of the i smallest values. A value's rank lies halfway between the weight
    # below the run of its equals and that up to its end.
    below = torch.nn.functional.pad(weights[order].cumsum(1), (1, 0))
    left = torch.searchsorted(ordered, columns, right=False)
    right = torch.searchsorted(ordered, columns, right=True)
    share = (below.gather(1, left) + below.gather(1, right)) / (2 * below[:, -1:])
    scores: Tensor = torch.special.ndtri(share)
    return scores.mT
