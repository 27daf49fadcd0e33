"""From chains of representations to pairs that can train: rows merged, sides white, dims equal.

Rows that weigh nothing are dropped and rows equal at every site of a chain are one row of their
joint weight, so that no row is both trained on and held out.

Discrete populations have few different rows, each with a frequency. The token level of emergence
is of this kind: a place of the prompts holds, say, 25 different tokens, some more often than
others. A sample holds every one of them many times, so nothing can be
held out (every held-out row was also trained on), a fitted Gaussian or a distance to the nearest
neighbour means nothing, and the information is known exactly without any of them: it is that of
the two discrete labels, ``sum w_xy log2 w_xy / (w_x w_y)``, which is also the value that a critic
trained on the repeated rows approaches from below.

When a population counts as discrete: by Good's estimate (Good, "The population frequencies of
species and the estimation of population parameters", Biometrika 1953), 1 - (rows seen once) /
(rows seen) is the chance that the next row has been seen before. A continuous variable never
repeats: 0. Above one half, on both sides, the rows are taken as atoms. So is a population of fewer
than ``LEAST_ROWS`` different rows, of which none could be held out. Cost: one pass over the rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import Batch
from ed_interp.probes.emergence.estimators.rows import (
    counted_rows,
    entropy_bits,
    equal_in_all,
    equal_rows,
)

Key = tuple[int, int]
"""(batch element, block)."""

LEAST_ROWS = 30
COVERED = 0.5


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


def coverage(labels: Int64[Tensor, "row"], counts: Float[Tensor, "row"] | None) -> float:
    """Good's estimate of the chance that the next row has been seen before.

    ``labels`` are equal for equal rows; ``counts`` says how often each was seen, by default once.
    """
    each = torch.ones(len(labels)) if counts is None else counts
    seen = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
    seen.index_add_(0, labels, each.double())
    return 1.0 - float((seen == 1).sum()) / float(seen.sum())


def counts_of(weights: Tensor | None) -> Float[Tensor, "*batch row"] | None:
    """Weights as numbers of times seen, if they are whole numbers; else ``None``."""
    if weights is None:
        return None
    counts = weights.detach().cpu().double()
    return counts if bool((counts == counts.round()).all()) else None


def is_discrete(
    x: Float[Tensor, "row d_x"], y: Float[Tensor, "row d_y"], counts: Float[Tensor, "row"] | None
) -> bool:
    """Whether the rows are atoms, by the rule of the module. Rows of weight 0 must be left out."""
    ids = [equal_rows(side).cpu() for side in (x, y)]
    if len(torch.unique(ids[0] * len(x) + ids[1])) < LEAST_ROWS:
        return True
    return min(coverage(labels, counts) for labels in ids) > COVERED


def discrete_terms(
    x: Float[Tensor, "row d_x"], y: Float[Tensor, "row d_y"], weights: Float[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """Pointwise information of the labels in bits; ``weights`` sum to 1."""
    first, second = (torch.unique(equal_rows(t).cpu(), return_inverse=True)[1] for t in (x, y))
    # A number per pair of labels, as the digits of a number to the base of the second's count.
    both = torch.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]
    logs = []
    for labels in (both, first, second):
        share = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
        share.index_add_(0, labels, weights)
        logs.append(share[labels].log2())
    # Rows of weight 0 may have labels of their own, whose logarithm is not finite.
    return torch.where(weights > 0, logs[0] - logs[1] - logs[2], 0.0)


def prepare(batch: Batch, white: Callable[[Tensor, Tensor], Tensor]) -> Chains:
    """Merge rows, find atoms, make every side white once (it serves two blocks).

    Args:
        batch: The chains; whole-numbered weights are taken as numbers of times seen.
        white: (rows, weights) -> their white coordinates, all of one width.

    Raises:
        InvalidInputError: NaN or infinite states.
    """
    rows = batch.weights.shape[-1]
    counts = counts_of(batch.given)
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
            if is_discrete(x, y, seen):
                prepared.exact[key] = discrete_terms(x, y, merged)
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


def stack(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Float[Tensor, "pair point"]]:
    """x, y and weights, ``pair point ...``; shorter pairs end in rows of weight 0."""
    padded = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    x, y = padded([pair.x for pair in pairs]), padded([pair.y for pair in pairs])
    return x, y, padded([pair.weights for pair in pairs]).to(x.device)
