"""Folds and minibatches of weighted rows that do not depend on who else is in the batch.

Random numbers come from counters: the stream of (seed, purpose, step) is the same whether it is
drawn in one go or after a resume, and its first n numbers are the same however many are drawn, so
padding a member with rows of weight zero changes nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

SHUFFLE, BATCH, START, SHIFT = range(4)
"""What random numbers are for."""
VALIDATION_EVERY = 5
"""One in five of the rows that are not held out stops the training; the others train."""


def uniforms(count: int, *stream: int) -> Float[Tensor, "count"]:
    """Numbers between 0 and 1, float64, that depend on ``stream`` alone; prefixes agree."""
    # SeedSequence takes no negative numbers; modulo 2^64 they remain different seeds.
    seeds = np.random.SeedSequence([part & (2**64 - 1) for part in stream])
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seeds)).random(count))


def shuffled(
    counts: Int64[Tensor, "member"], length: int, *stream: int
) -> Int64[Tensor, "member length"]:
    """The first ``count`` indices of each member in an order of that count, the others behind."""
    keys = uniforms(length, *stream)
    kinds, kind = torch.unique(counts, return_inverse=True)
    orders = []
    for count in kinds.tolist():
        orders.append(torch.cat([keys[:count].argsort(stable=True), torch.arange(count, length)]))
    return torch.stack(orders)[kind]


def draw(
    weights: Float[Tensor, "member row"], points: int, *stream: int
) -> Int64[Tensor, "member points"]:
    """Indices of rows in proportion to their weights, by systematic sampling in a random order.

    Rows of equal weight are drawn without repetition while there are enough of them: with as many
    points as rows every row comes exactly once, in a random order. Rows of weight zero must come
    last, and are never drawn.
    """
    counts = (weights > 0).sum(1).cpu()
    order = shuffled(counts, weights.shape[1], *stream, 0).to(weights.device)
    sums = weights.double().gather(1, order).cumsum(1)
    offset = uniforms(1, *stream, 1).to(weights.device)
    places = (torch.arange(points, device=weights.device) + offset) / points
    # Sums are scaled to end at 1 exactly; their rounding errors must not reach a row of weight 0.
    drawn = torch.searchsorted(sums / sums[:, -1:], places.repeat(len(weights), 1), right=True)
    last = (counts - 1).to(weights.device)[:, None]
    return order.gather(1, torch.minimum(drawn, last))


def permuted(weights: Float[Tensor, "member row"], *stream: int) -> Int64[Tensor, "member row"]:
    """As many draws as each member has rows: for equal weights a permutation of them."""
    counts = (weights > 0).sum(1)
    drawn = torch.zeros(weights.shape, dtype=torch.int64, device=weights.device)
    # Members of one size together: as many points as rows is another number for each size.
    for count in torch.unique(counts).tolist():
        which = counts == count
        drawn[which, :count] = draw(weights[which, :count], count, *stream)
    return drawn


def fold_places(rows: int, folds: int, fold: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the shuffled order: (to train on, to stop by, held out)."""
    place = torch.arange(rows)
    held = place % folds == fold
    # Counted in rounds of the folds, or some folds would have no rows to stop by.
    stops = ~held & (place // folds % VALIDATION_EVERY == VALIDATION_EVERY - 1)
    return place[~held & ~stops], place[stops], place[held]
