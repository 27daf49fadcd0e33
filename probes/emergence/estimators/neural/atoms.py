"""Populations that are discrete: few different rows, each with a frequency.

The token level of emergence is of this kind: a place of the prompts holds, say, 25 different
tokens, some more often than others. A sample holds every one of them many times, so nothing can be
held out (every held-out row was also trained on), a fitted Gaussian or a distance to the nearest
neighbour means nothing, and the information is known exactly without any of them: it is that of
the two discrete labels, ``sum w_xy log2 w_xy / (w_x w_y)``, which is also the value that a critic
trained on the repeated rows approaches from below.

When a population counts as discrete: by Good's estimate (Good, "The population frequencies of
species and the estimation of population parameters", Biometrika 1953), 1 - (rows seen once) /
(rows seen) is the chance that the next row has been seen before. A continuous variable never
repeats: 0. Above one half, on both sides, the rows are taken as atoms. So is a population of fewer
than ``LEAST_ROWS`` different rows, of which none could be held out.
Cost: one pass over the rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.rows import equal_rows

LEAST_ROWS = 30
COVERED = 0.5


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
