"""What estimators that model densities do with a table first: scale, margins, whitening.

Cost: a Gram matrix of the columns (or of the rows, where they are fewer) and its eigenvectors,
``n d min(n, d)`` operations in float64.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Margins = Literal["raw", "rank"]

# Directions of less than this share of the largest variance are rounding errors: float32 states
# leave 1e-14, for instance along the ones after a layer norm.
_RANK = 1e-10


@dataclasses.dataclass(frozen=True)
class Whitened:
    """Rows in coordinates without correlation, of largest variance first."""

    scores: Float[Tensor, "row component"]
    """Weighted mean 0 and weighted variance 1 in each component, float64."""

    @property
    def width(self) -> int:
        """Number of directions in which the rows vary."""
        return self.scores.shape[1]


def whitened(
    x: Float[Tensor, "row d"], weights: Float[Tensor, "row"], margins: Margins = "raw"
) -> Whitened:
    """Principal components of the columns brought to one scale, each of variance 1.

    Args:
        x: Finite rows, all of positive weight.
        weights: Summing to 1, float64, on the device of ``x``.
        margins: ``rank`` replaces every column by the normal quantiles of its ranks first.
    """
    table = scaled(x, weights, margins)
    rows, width = table.shape
    if width == 0:
        return Whitened(table)
    root = weights.sqrt()[:, None]
    weighted = table * root
    # The smaller of the two Gram matrices has all eigenvalues that are not 0.
    if width <= rows:
        values, vectors = torch.linalg.eigh(weighted.T @ weighted)
        kept = _kept(values)
        scores = table @ (vectors[:, kept] / values[kept].sqrt())
    else:
        values, vectors = torch.linalg.eigh(weighted @ weighted.T)
        scores = vectors[:, _kept(values)] / root
    return Whitened(scores.flip(1))  # eigh sorts upwards


def scaled(
    x: Float[Tensor, "row d"], weights: Float[Tensor, "row"], margins: Margins = "raw"
) -> Float[Tensor, "row column"]:
    """Columns that vary, in float64, each with weighted mean 0 and standard deviation 1."""
    table = x.detach().double()
    # A constant column keeps the rounding error of its mean, which is no variance.
    least = 1e-12 * table.abs().amax(0)
    if margins == "rank":
        table = normal_ranks(table, weights)
    table = table - weights @ table
    spread = (weights @ table.square()).sqrt()
    varies = spread > (1e-12 if margins == "rank" else least)
    return table[:, varies] / spread[varies]


def _kept(values: Tensor) -> Tensor:
    return values > _RANK * values[-1].clamp(min=torch.finfo(values.dtype).tiny)


def normal_ranks(x: Float[Tensor, "row d"], weights: Float[Tensor, "row"]) -> Tensor:
    """Normal quantiles of weighted mid-ranks, column by column; equal values stay equal."""
    # A value's rank is the weight below it and half the weight of its equals, so that a row of
    # weight 2 has the rank of two equal rows.
    ordered, order = x.sort(0)
    share = weights[order]
    below = share.cumsum(0) - share
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    # Sorted, equal values form runs: the weight below the run of each place, and the run's own.
    run = starts.cumsum(0) - 1
    mass = torch.zeros_like(share).scatter_add_(0, run, share)
    first = torch.zeros_like(share).scatter_reduce_(0, run, below, "amin", include_self=False)
    middle = first.gather(0, run) + 0.5 * mass.gather(0, run)
    ranks = torch.empty_like(middle).scatter_(0, order, middle)
    quantiles: Tensor = torch.special.ndtri(ranks.clamp(1e-9, 1 - 1e-9))
    return quantiles
