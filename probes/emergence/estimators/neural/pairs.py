"""From chains of representations to pairs that can train: rows merged, sides white, dims equal.

Shared by all trained estimators. Rows that weigh nothing are dropped and rows equal at every site
of a chain are one row of their joint weight, so that no row is both trained on and held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural.atoms import (
    counts_of,
    discrete_terms,
    is_discrete,
)
from ed_interp.probes.emergence.estimators.neural.marginals import check_finite
from ed_interp.probes.emergence.estimators.rows import (
    entropy_bits,
    equal_in_all,
    equal_rows,
    population_weights,
)

Key = tuple[int, int]
"""(batch element, block)."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two representations of the distinct rows of one population."""

    x: Float[Tensor, "point d_x"]
    y: Float[Tensor, "point d_y"]
    weights: Float[Tensor, "point"]
    """Above 0, sum to 1; float64."""


@dataclasses.dataclass
class Chains:
    """Pairs of neighbouring sites of a batch of chains, and the way back from pairs to rows."""

    pairs: dict[Key, Pair]
    """What has to be trained."""
    exact: dict[Key, Float[Tensor, "point"]]
    """Terms in bits, where the rows are atoms."""
    homes: list[Int64[Tensor, "row"]]
    """Per batch element: the point of each row; -1 for rows that weigh nothing."""
    limits: list[float]
    weights: Float[Tensor, "*batch row"]
    blocks: int

    def rows(self, terms: dict[Key, Float[Tensor, "point"]]) -> Float[Tensor, "element block row"]:
        """Terms of points given back to the rows; 0 for rows that weigh nothing."""
        found = torch.zeros(len(self.homes), self.blocks, len(self.homes[0]), dtype=torch.float64)
        for (element, block), values in (terms | self.exact).items():
            home = self.homes[element]
            spread = values.detach().cpu().double()[home.clamp(min=0)]
            found[element, block] = torch.where(home >= 0, spread, 0.0)
        return found


def prepare(
    chains: Sequence[Sequence[Tensor]],
    batch: Sequence[int],
    weights: Tensor | None,
    white: Callable[[Tensor, Tensor], Tensor],
) -> Chains:
    """Merge rows, find atoms, make every side white once (it serves two blocks).

    Args:
        chains: for each batch element the tables ``row d`` of its sites.
        batch: the batch shape.
        weights: as callers gave them; whole numbers are taken as numbers of times seen.
        white: (rows, weights) -> their white coordinates, all of one width.

    Raises:
        InvalidInputError: NaN or infinite states, bad weights.
    """
    rows = len(chains[0][0])
    normal = population_weights(weights, batch, rows)
    flat = normal.expand(*batch, rows).reshape(-1, rows)
    counts = counts_of(weights)
    flat_counts = None if counts is None else counts.expand(*batch, rows).reshape(-1, rows)
    found = Chains({}, {}, [], [], normal, len(chains[0]) - 1)
    for element, sites in enumerate(chains):
        share = flat[element]
        counted = share > 0
        device = sites[0].device
        kept = [site.detach()[counted.to(device)] for site in sites]
        kept = [site.float() if site.element_size() < 4 else site for site in kept]
        for index, site in enumerate(kept):
            check_finite(site, index)
        joint = equal_in_all(equal_rows(site) for site in kept).cpu()
        firsts, point = torch.unique(joint, return_inverse=True)
        merged = torch.zeros(len(firsts), dtype=torch.float64)
        merged.index_add_(0, point, share[counted])
        times = torch.ones(int(counted.sum())).double()
        times = times if flat_counts is None else flat_counts[element][counted]
        seen = torch.zeros(len(firsts), dtype=torch.float64).index_add_(0, point, times)
        home = torch.full((rows,), -1)
        home[counted] = point
        found.homes.append(home)
        found.limits.append(entropy_bits(merged))
        points = [site[firsts.to(device)] for site in kept]
        sides: dict[int, Tensor] = {}
        for block in range(found.blocks):
            x, y = points[block], points[block + 1]
            key = (element, block)
            if is_discrete(x, y, seen):
                found.exact[key] = discrete_terms(x, y, merged)
                continue
            for index in (block, block + 1):
                if index not in sides:
                    sides[index] = white(points[index], merged.to(device))
            found.pairs[key] = Pair(sides[block], sides[block + 1], merged)
    return found


def grouped(
    pairs: Mapping[Key, Pair],
    size: Callable[[Pair], int],
    max_bytes: int,
    *,
    kind: Callable[[Pair], Hashable] = lambda pair: None,
) -> list[list[Key]]:
    """Which pairs train together: as many of one kind as fit, the shorter first."""
    groups: list[list[Key]] = []
    held = 0
    last: Hashable = None
    for key in sorted(pairs, key=lambda one: len(pairs[one].weights)):
        needed, own = size(pairs[key]), kind(pairs[key])
        if not groups or own != last or held + needed > max_bytes:
            groups.append([])
            held = 0
        groups[-1].append(key)
        held, last = held + needed, own
    return groups


def stack(
    pairs: Sequence[Pair],
) -> tuple[
    Float[Tensor, "pair point d_x"], Float[Tensor, "pair point d_y"], Float[Tensor, "pair point"]
]:
    """The pairs as one table, shorter ones padded with rows of weight 0 at the end."""
    longest = max(len(pair.weights) for pair in pairs)

    def padded(table: Tensor) -> Tensor:
        missing = longest - len(table)
        return torch.nn.functional.pad(table, (0, 0) * (table.ndim - 1) + (0, missing))

    device = pairs[0].x.device
    return (
        torch.stack([padded(pair.x) for pair in pairs]),
        torch.stack([padded(pair.y) for pair in pairs]),
        torch.stack([padded(pair.weights) for pair in pairs]).to(device),
    )
