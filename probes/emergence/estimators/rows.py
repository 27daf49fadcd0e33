"""The rows of a weighted population: which are equal, what they weigh, their entropy.

Cost: one pass over 16 columns where all rows differ, else one pass over all columns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.errors import InvalidInputError

_SCREEN = 16
"""Columns compared first; rows that differ there are not compared further."""


def first_index(keys: Int64[Tensor, "row"]) -> Int64[Tensor, "row"]:
    """For each row the index of the first row with the same key."""
    _, inverse = torch.unique(keys, return_inverse=True)
    order = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(order, len(keys)).scatter_reduce_(0, inverse, order, "amin")
    return first[inverse]


def equal_rows(x: Float[Tensor, "row d"]) -> Int64[Tensor, "row"]:
    """For each row the index of the first row equal to it in every bit (0.0 equals -0.0)."""
    # Bit by bit: distances by a matrix product leave rounding errors where equal rows should have
    # distance 0, and at low noise such an error would make equal prompts look different.
    rows, width = x.shape
    stride = max(1, width // _SCREEN)
    if len(torch.unique(_hash(x[:, ::stride]))) == rows:
        return torch.arange(rows, device=x.device)
    first = first_index(_hash(x))
    if torch.equal(x, x[first]):
        return first
    # Two different rows with one 64-bit hash: rare enough to sort the rows themselves.
    _, inverse = torch.unique(x, dim=0, return_inverse=True)
    return first_index(inverse)


def _hash(x: Float[Tensor, "row d"]) -> Int64[Tensor, "row"]:
    # Sums of integers do not depend on their order, sums of floats would.
    wide = x.element_size() == 8
    # Adding 0.0 turns -0.0, whose bits differ, into 0.0.
    bits = (x + 0.0).contiguous().view(torch.int64 if wide else torch.int32).to(torch.int64)
    generator = torch.Generator().manual_seed(0)
    # Odd factors have an inverse modulo 2^64, so a change of a single column never goes unnoticed.
    odd = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator) * 2 + 1
    return (bits * odd.to(x.device)).sum(-1)


def equal_in_all(sites: Iterable[Int64[Tensor, "row"]]) -> Int64[Tensor, "row"]:
    """For each row the first row that is equal at every site, from ``equal_rows`` of the sites."""
    # Both are below the number of rows, so each pair of them has a key of its own.
    return functools.reduce(lambda joint, ids: first_index(joint * len(ids) + ids), sites)


def population_weights(
    weights: Tensor | None, batch: Sequence[int], rows: int
) -> Float[Tensor, "*batch row"]:
    """Weights that sum to 1, float64 on the CPU; uniform for ``None``. Bad ones are refused."""
    if weights is None:
        return torch.full((rows,), 1.0 / rows, dtype=torch.float64)
    weights = weights.detach().cpu().double()
    if weights.ndim == 0 or weights.shape[-1] != rows:
        raise InvalidInputError(
            f"weights must have one value for each of {rows} rows, got shape {tuple(weights.shape)}"
        )
    if weights.ndim > 1 and weights.shape[:-1] != torch.Size(batch):
        raise InvalidInputError(
            f"weights must have the batch shape {tuple(batch)} of the states, got "
            f"{tuple(weights.shape[:-1])}; pass one per row, or one per batch element and row"
        )
    if not bool(torch.isfinite(weights).all()):
        raise InvalidInputError("weights must be finite, got NaN or infinite values")
    if bool((weights < 0).any()):
        least = float(weights.min())
        raise InvalidInputError(f"weights must not be negative, got {least:g}; pass frequencies")
    total = weights.sum(-1, keepdim=True)
    if bool((total <= 0).any()) or not bool(torch.isfinite(total).all()):
        raise InvalidInputError("weights must not sum to zero or overflow; at least one must count")
    return weights / total


def counted_rows(
    sites: Sequence[Tensor], weights: Float[Tensor, "row"]
) -> tuple[Int64[Tensor, "point"], Float[Tensor, "point"], list[Tensor]]:
    """Indices of the rows of positive weight, their weights, and these rows of every site.

    Indices and weights are on the CPU, the rows on the device of the first site, and finite.
    """
    index, device = (weights > 0).nonzero()[:, 0], sites[0].device
    kept = [x.detach().to(device)[index.to(device)] for x in sites]
    for site, x in enumerate(kept):
        check_finite(x, site)
    return index, weights[index], kept


def check_finite(x: Float[Tensor, "row d"], site: int) -> None:
    """Raise :class:`InvalidInputError` for NaN or infinite values."""
    good = torch.isfinite(x).all(-1)
    if not bool(good.all()):
        raise InvalidInputError(
            f"{int((~good).sum())} of {len(x)} rows hold NaN or infinite values at site {site} "
            f"(the first is row {int((~good).nonzero()[0])}); drop them, or capture in float32"
        )


def entropy_bits(weights: Float[Tensor, "row"]) -> float:
    """Entropy of weights that sum to 1, in bits."""
    positive = weights[weights > 0].double()
    return max(0.0, float(-(positive * positive.log2()).sum()))


def population_entropy(
    sites: Sequence[Tensor] | Float[Tensor, "site row d"], weights: Float[Tensor, "row"]
) -> float:
    """Entropy of the population in bits, rows equal at every site being one element."""
    joint = equal_in_all(map(equal_rows, sites)).cpu()
    return entropy_bits(torch.bincount(joint, weights.double()))
