"""What estimators that model densities share: rows that count, scale, margins, whitening.

Cost of whitening: a Gram matrix of the columns (or of the rows, where they are fewer) and its
eigenvectors, ``n d min(n, d)`` operations in float64.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import Batch, ChainEstimator, Terms
from ed_interp.probes.emergence.estimators.rows import counted_rows, population_entropy

Margins = Literal["raw", "rank"]
Table = Float[Tensor, "row _"]
Shares = Float[Tensor, "row"]

# Directions of less than this share of the largest variance are rounding errors: float32 states
# leave 1e-14, for instance along the ones after a layer norm.
_RANK = 1e-10


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityEstimator(ChainEstimator):
    """Base of estimators that model densities: they see only the rows that count."""

    random: ClassVar[bool] = False
    """Whether the seed has an effect, and is recorded."""

    @abc.abstractmethod
    def each_block(
        self, sites: list[Tensor], share: Tensor, *, seed: int, max_bytes: int
    ) -> Iterable[tuple[Tensor, Sequence[str]]]:
        """For each pair of neighbouring sites the terms of the rows in bits, and flags.

        ``sites`` are tables ``row d`` on one device, of finite rows of positive weight; ``share``
        are their weights, which sum to 1, float64 on the CPU.
        """

    @torch.no_grad()
    def run(self, batch: Batch, *, seed: int, max_bytes: int) -> Terms:
        rows = batch.weights.shape[-1]
        terms = torch.zeros(*batch.mask().shape, rows, dtype=torch.float64)
        flags: dict[str, Tensor] = {}
        limits = [population_entropy(sites, own) for sites, own in batch.each()]
        for index, (sites, own) in enumerate(batch.each()):
            counted, share, kept = counted_rows(sites, own)
            blocks = self.each_block(kept, share, seed=seed, max_bytes=max_bytes)
            for block, (bits, raised) in enumerate(blocks):
                terms[index, block, counted] = bits.cpu()
                for name in raised:
                    flags.setdefault(name, batch.mask())[index, block] = True
        settings = self.recorded(seed=seed) if self.random else self.recorded()
        return batch.result(terms, limits, settings, flags)


def whitened(x: Table, weights: Shares, margins: Margins = "raw") -> Table:
    """Principal components of the columns brought to one scale, the largest first.

    Each has weighted mean 0 and variance 1; ``weights`` sum to 1, float64, on the device of ``x``.
    """
    table = scaled(x, weights, margins)
    rows, width = table.shape
    if width == 0:
        return table
    root = weights.sqrt()[:, None]
    weighted = table * root
    # The smaller of the two Gram matrices has all eigenvalues that are not 0.
    narrow = width <= rows
    values, vectors = torch.linalg.eigh(weighted.T @ weighted if narrow else weighted @ weighted.T)
    kept = values > _RANK * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    axes = vectors[:, kept]
    scores: Tensor = table @ (axes / values[kept].sqrt()) if narrow else axes / root
    return scores.flip(1)  # eigh sorts upwards


def scaled(x: Table, weights: Shares, margins: Margins = "raw") -> Table:
    """Columns that vary, in float64, each with weighted mean 0 and standard deviation 1.

    Margins ``rank`` replaces every column by the normal quantiles of its ranks first.
    """
    table = x.detach().double()
    # A constant column keeps the rounding error of its mean, which is no variance.
    least = 1e-12 * table.abs().amax(0)
    if margins == "rank":
        table = normal_ranks(table, weights)
    table = table - weights @ table
    spread = (weights @ table.square()).sqrt()
    varies = spread > (1e-12 if margins == "rank" else least)
    return table[:, varies] / spread[varies]


def normal_ranks(x: Table, weights: Shares) -> Table:
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
