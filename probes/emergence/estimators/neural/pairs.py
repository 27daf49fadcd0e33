"""From chains of representations to pairs that can train: rows merged, sides white, dims equal.

Rows that weigh nothing are dropped and rows equal at every site of a chain are one row of their
joint weight, so that no row is both trained on and held out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import Batch
from ed_interp.probes.emergence.estimators.neural import atoms
from ed_interp.probes.emergence.estimators.rows import (
    counted_rows,
    entropy_bits,
    equal_in_all,
    equal_rows,
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
    blocks: int

    def rows(self, terms: dict[Key, Float[Tensor, "point"]]) -> Float[Tensor, "element block row"]:
        """Terms of points given back to the rows; 0 for rows that weigh nothing."""
        spread = torch.zeros(len(self.homes), self.blocks, len(self.homes[0]), dtype=torch.float64)
        for (element, block), values in (terms | self.exact).items():
            home = self.homes[element]
            own = values.detach().cpu().double()[home.clamp(min=0)]
            spread[element, block] = torch.where(home >= 0, own, 0.0)
        return spread


def prepare(batch: Batch, white: Callable[[Tensor, Tensor], Tensor]) -> Chains:
    """Merge rows, find atoms, make every side white once (it serves two blocks).

    Args:
        batch: The chains; whole-numbered weights are taken as numbers of times seen.
        white: (rows, weights) -> their white coordinates, all of one width.

    Raises:
        InvalidInputError: NaN or infinite states.
    """
    rows = batch.weights.shape[-1]
    counts = atoms.counts_of(batch.given)
    times = torch.ones(rows, dtype=torch.float64) if counts is None else counts
    prepared = Chains({}, {}, [], [], batch.blocks)
    for element, (sites, own) in enumerate(batch.each()):
        counted, share, kept = counted_rows(sites, own)
        kept = [site.float() if site.element_size() < 4 else site for site in kept]
        joint = equal_in_all(equal_rows(site) for site in kept).cpu()
        firsts, point = torch.unique(joint, return_inverse=True)
        merged, seen = torch.zeros(2, len(firsts), dtype=torch.float64)
        merged.index_add_(0, point, share)
        seen.index_add_(0, point, batch.flat(times)[element][counted])
        home = torch.full((rows,), -1)
        home[counted] = point
        prepared.homes.append(home)
        prepared.limits.append(entropy_bits(merged))
        points = [site[firsts.to(site.device)] for site in kept]
        sides: dict[int, Tensor] = {}
        for block in range(prepared.blocks):
            x, y = points[block], points[block + 1]
            key = (element, block)
            if atoms.is_discrete(x, y, seen):
                prepared.exact[key] = atoms.discrete_terms(x, y, merged)
                continue
            for index in (block, block + 1):
                if index not in sides:
                    sides[index] = white(points[index], merged.to(x.device))
            prepared.pairs[key] = Pair(sides[block], sides[block + 1], merged)
    return prepared


def grouped(
    pairs: Mapping[Key, Pair],
    size: Callable[[Pair], int],
    max_bytes: int,
    kind: Callable[[Pair], Hashable],
) -> list[list[Key]]:
    """Which pairs train together: as many of one kind as fit, the shorter first."""
    groups: list[list[Key]] = []
    held = 0
    last: Hashable = None
    # By length: a pair is padded to the longest of its group.
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
    padded = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    x, y = padded([pair.x for pair in pairs]), padded([pair.y for pair in pairs])
    return x, y, padded([pair.weights for pair in pairs]).to(x.device)
