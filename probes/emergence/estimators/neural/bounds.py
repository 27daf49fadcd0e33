r"""Lower bounds of mutual information: objectives of the training and row terms of the value.

With f a critic, p the joint distribution and q the product of its marginals, in nats:

- ``dv``: :math:`E_p f - \ln E_q e^f` (Donsker and Varadhan 1983; Belghazi et al. 2018)
- ``nwj``: :math:`E_p f + 1 - E_q e^f` (Nguyen, Wainwright, Jordan 2010)
- ``infonce``: :math:`E [f(x_i, y_i) - \ln \sum_j w_j e^{f(x_i, y_j)}]`, the own row among the
  alternatives, as a mean over both directions (van den Oord, Li, Vinyals 2018); at most ln N
- ``smile``: as ``dv`` with f clipped to [-tau, tau] in the second term (Song and Ermon, ICLR 2020);
  as in their code, the critic is trained by the Jensen-Shannon objective
  :math:`-E_p \ln(1 + e^{-f}) - E_q \ln(1 + e^f)`, whose optimum is the same f. Clipped, it is no
  bound any more.

A row term is what the row contributes, to first order, to the value as a function of the
population: it holds f(x_i, y_i) and what the row does as an alternative of the others. So the
weighted mean of the terms is the value exactly, and a bootstrap over them is right to first order.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Bound = Literal["dv", "nwj", "infonce", "smile"]
Scores = Float[Tensor, "member row row"]
Terms = Float[Tensor, "member row"]

# Largest exponent in float32 that still has room for a sum.
_HIGHEST = 80.0


def slope(scores: Scores, bound: Bound) -> Scores:
    """Derivative of the training objective of a minibatch in its scores; the diagonal is joint."""
    # Training needs nothing else of the objective, and the derivatives are simpler than the
    # values: with B rows and p the softmax of the scores (over rows and columns for infonce, over
    # all separate pairs for dv), 1/B on the diagonal minus p.
    rows = scores.shape[-1]
    if bound == "infonce":
        change = scores.softmax(2).add_(scores.softmax(1)).div_(-2 * rows)
        change.diagonal(dim1=1, dim2=2).add_(1 / rows)
        return change
    pairs = rows * (rows - 1)
    if bound == "dv":
        apart = scores.clone()
        apart.diagonal(dim1=1, dim2=2).fill_(-math.inf)
        change = apart.flatten(1).softmax(1).view_as(scores).neg()
    elif bound == "nwj":
        change = scores.clamp(max=_HIGHEST).exp_().div_(-pairs)
    else:
        change = scores.sigmoid().div_(-pairs)
    joint = torch.full_like(scores[:, 0], 1 / rows)
    if bound == "smile":
        joint = (-scores.diagonal(dim1=1, dim2=2)).sigmoid() / rows
    change.diagonal(dim1=1, dim2=2).copy_(joint)
    return change


def donsker_varadhan(
    joint: Float[Tensor, "*member row"], apart: Float[Tensor, "*member pair"]
) -> Float[Tensor, "*member"]:
    """Mean of f over joint rows minus the log of the mean of exp f over separate ones, in nats."""
    return joint.mean(-1) - (apart.logsumexp(-1) - math.log(apart.shape[-1]))


def without_diagonal(scores: Scores) -> Float[Tensor, "member row rest"]:
    """Every row's scores against the others."""
    members, rows, _ = scores.shape
    # In the flat table the diagonal is every (rows + 1)-th entry. Without the first entry it is
    # the last column of lines of that length.
    shifted = scores.flatten(1)[:, 1:].view(members, rows - 1, rows + 1)[:, :, :-1]
    return shifted.reshape(members, rows, rows - 1)


def value_terms(
    scores: Scores, weights: Terms, bound: Bound, *, level: Float[Tensor, "member"], clip: float
) -> Terms:
    """Row terms in nats over held-out rows; their weighted mean is the value.

    Args:
        scores: f of every x (rows) with every y (columns), float32 or float64.
        weights: Weights that sum to 1 in every member; rows of weight 0 have no effect.
        bound: Which bound.
        level: Constant subtracted from f before ``nwj`` and ``smile``: the log of the mean of exp f
            over other rows. The bound holds for any; it is sharpest at the log of the mean itself.
        clip: Tau of ``smile``, in nats.
    """
    joint = scores.diagonal(dim1=1, dim2=2)
    logs = weights.log()
    if bound == "infonce":
        return joint - (_choice(scores, logs, joint) + _choice(scores.mT, logs, joint)) / 2
    eye = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    # ln of the weight of all pairs of different rows: 1 less that of the diagonal.
    total = torch.log1p(-weights.square().sum(1))
    apart = scores
    if bound in ("nwj", "smile"):
        joint, apart = joint - level[:, None], apart - level[:, None, None]
    if bound == "smile":
        apart = apart.clamp(-clip, clip)
    apart = apart.masked_fill(eye, -math.inf)
    # Every row occurs on two sides: its x with other y, and its y with other x.
    as_x = (apart + logs[:, None, :]).logsumexp(2) - total[:, None]
    as_y = (apart + logs[:, :, None]).logsumexp(1) - total[:, None]
    if bound == "nwj":
        both = as_x.exp() + as_y.exp()
        return joint + 1 - both + (both * weights).sum(1, keepdim=True) / 2
    mean = (as_x + logs).logsumexp(1, keepdim=True)
    return joint - mean - (as_x - mean).exp() - (as_y - mean).exp() + 2


def _choice(scores: Tensor, logs: Tensor, joint: Tensor) -> Tensor:
    """Ln sum_j w_j exp f(x_i, y_j), and what row i does in the sums of the others."""
    sums = (scores + logs[:, None, :]).logsumexp(2)
    as_other = (scores - sums[:, :, None] + logs[:, :, None]).logsumexp(1).exp()
    return sums + as_other - 1
