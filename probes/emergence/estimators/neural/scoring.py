r"""Scores of critics with their reference, and bounds of mutual information made of them.

Scores are f(x, y) = g(x, y) + c(x, y), reference and critic, on rows of every member. Bounds are
objectives of the training and row terms of the value. With p the joint distribution and q the
product of its marginals, in nats:

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

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural import critics
from ed_interp.probes.emergence.estimators.neural.critics import Critic, Rows, Separable, Weights
from ed_interp.probes.emergence.estimators.neural.reference import Reference
from ed_interp.probes.emergence.estimators.neural.sampling import SHIFT, uniforms

Bound = Literal["dv", "nwj", "infonce", "smile"]
Scores = Float[Tensor, "member row row"]
Terms = Float[Tensor, "member row"]

# Largest exponent in float32 that still has room for a sum.
_HIGHEST = 80.0

SHIFTS = 4
"""Separate pairs per row of critics that do not score all pairs."""

Index = Int64[Tensor, "member place"]


@dataclasses.dataclass(frozen=True)
class Part(Reference):
    """Some rows of every member, with the one-sided parts of the reference; float32."""

    weights: Float[Tensor, "member row"]
    """Sum to 1; rows of weight 0 come last."""

    @classmethod
    def of(cls, reference: Reference, rows: Index, weights: Float[Tensor, "member place"]) -> Part:
        """The rows ``rows`` of the reference's members."""
        share = weights / weights.sum(1, keepdim=True)
        x, y = gathered(reference.x, rows), gathered(reference.y, rows)
        of_x, of_y = reference.of_x.gather(1, rows), reference.of_y.gather(1, rows)
        return cls(*(table.float() for table in (x, y, reference.left, of_x, of_y, share)))

    def members(self, which: Tensor) -> Part:
        """Only these members."""
        return Part(*(getattr(self, field.name)[which] for field in dataclasses.fields(self)))

    def rows(self, index: Index) -> Part:
        """Rows drawn in proportion to their weights, so each counts alike."""
        x, y = gathered(self.x, index), gathered(self.y, index)
        of_x, of_y = self.of_x.gather(1, index), self.of_y.gather(1, index)
        even = torch.full(index.shape, 1 / index.shape[1], device=index.device)
        return Part(x, y, self.left, of_x, of_y, even)

    def other(self, index: Index) -> Part:
        """The same x with other rows' y, which bring their weights."""
        of_y, weights = self.of_y.gather(1, index), self.weights.gather(1, index)
        return dataclasses.replace(self, y=gathered(self.y, index), of_y=of_y, weights=weights)

    def pairs(self) -> Float[Tensor, "member row row"]:
        """The reference g of every x with every y."""
        products = (self.x * self.left[:, None]) @ self.y.mT
        return products.add_(self.of_x[:, :, None]).add_(self.of_y[:, None, :])


def gathered(table: Rows, index: Index) -> Float[Tensor, "member place _"]:
    """These rows of every member."""
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[2]))


def all_scores(weights: Weights, part: Part) -> Float[Tensor, "member row row"]:
    """The critic f of every x with every y, in one product."""
    # The last column of a side is u or v, the others phi or psi.
    first, second = critics.mlp(weights, "x", part.x)[-1], critics.mlp(weights, "y", part.y)[-1]
    left = torch.cat([part.x * part.left[:, None], first[..., :-1]], dim=-1)
    right = torch.cat([part.y, second[..., :-1]], dim=-1)
    of_x, of_y = part.of_x + first[..., -1], part.of_y + second[..., -1]
    return torch.baddbmm(of_x[:, :, None] + of_y[:, None, :], left, right.mT)


def training_gradients(
    critic: Critic, weights: Weights, batch: Part, bound: Bound, shifts: Int64[Tensor, "shift"]
) -> Weights:
    """Derivatives of what the step of every member maximises."""
    if isinstance(critic, Separable):
        return _separable_gradients(weights, batch, bound)
    leaves = {name: one.detach().requires_grad_() for name, one in weights.items()}
    joint, *apart = (
        critic.scores(leaves, part.x, part.y) + part.joint()
        for part in (batch, *(batch.other(index) for index in shifted(batch, shifts)))
    )
    value = donsker_varadhan(joint, torch.cat(apart, dim=1))
    # Members share no weights, so the gradient of the sum is that of each by itself.
    gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


@torch.no_grad()
def _separable_gradients(weights: Weights, batch: Part, bound: Bound) -> Weights:
    first, second = critics.mlp(weights, "x", batch.x), critics.mlp(weights, "y", batch.y)
    # In the product the last column, u or v, belongs to a column of ones of the other side.
    left, right = first[-1].clone(), second[-1].clone()
    left[..., -1], right[..., -1] = 1, 1
    of_x, of_y = batch.of_x + first[-1][..., -1], batch.of_y + second[-1][..., -1]
    scores = torch.baddbmm(
        of_x[:, :, None] + of_y[:, None, :], batch.x * batch.left[:, None], batch.y.mT
    )
    scores.baddbmm_(left[..., :-1], right[..., :-1].mT)
    change = slope(scores, bound)
    return critics.mlp_gradients(weights, "x", first, change @ right) | critics.mlp_gradients(
        weights, "y", second, change.mT @ left
    )


def held_out_terms(
    critic: Critic,
    weights: Weights,
    part: Part,
    bound: Bound,
    *,
    clip: float,
    level: Float[Tensor, "member"],
    shifts: Int64[Tensor, "shift"],
) -> Float[Tensor, "member row"]:
    """Row terms of the value in nats, in double precision; the weighted mean is the value."""
    if isinstance(critic, Separable):
        scores = all_scores(weights, part).double()
        return value_terms(scores, part.weights.double(), bound, level=level, clip=clip)
    share = part.weights.double()
    gain = critic.scores(weights, part.x, part.y).double()
    reference = value_terms(part.pairs().double(), share, "dv", level=level, clip=clip)
    # ln E_q e^(g+c) = ln E_q e^g, over all pairs, + ln of the mean of e^c weighted by e^g, over
    # some of them.
    with_gain, without = [], []
    places = shifted(part, shifts)
    for index in places:
        other = part.other(index)
        base = other.joint().double() + (share * other.weights.double()).log()
        with_gain.append(base + critic.scores(weights, other.x, other.y).double())
        without.append(base)
    above, below = (torch.stack(parts, 1) for parts in (with_gain, without))
    total = above.flatten(1).logsumexp(1)[:, None, None]
    base_total = below.flatten(1).logsumexp(1)[:, None, None]
    # What each pair contributes beyond the reference, credited to both of its rows.
    extra = (above - total).exp() - (below - base_total).exp()
    rest = part.weights.clamp(min=1e-30).double()
    as_x = extra.sum(1) / rest
    as_y = torch.zeros_like(as_x)
    for shift, index in enumerate(places):
        as_y.scatter_add_(1, index, extra[:, shift])
    return reference + gain - (total - base_total)[:, 0] - as_x - as_y / rest


def stop_value(
    critic: Critic, weights: Weights, part: Part, bound: Bound, shifts: Int64[Tensor, "shift"]
) -> Float[Tensor, "member"]:
    """What early stopping watches, in nats: the value on rows that no step has seen."""
    # For nwj its optimum over a constant added to f, which is dv; for smile, whose clipped value
    # bounds nothing, the Jensen-Shannon objective that it is trained by.
    if bound == "smile" and isinstance(critic, Separable):
        scores, share = all_scores(weights, part), part.weights
        lost = torch.nn.functional.softplus
        both = without_diagonal(share[:, :, None] * share[:, None, :])
        apart = (lost(without_diagonal(scores)) * both).sum((1, 2)) / both.sum((1, 2))
        return -(lost(-scores.diagonal(dim1=1, dim2=2)) * share).sum(1) - apart
    watched: Bound = "infonce" if bound == "infonce" else "dv"
    none = part.x.new_zeros(len(part.x)).double()
    terms = held_out_terms(critic, weights, part, watched, clip=0.0, level=none, shifts=shifts)
    # Terms of padding may be NaN, which a weight of 0 would not remove.
    return torch.where(part.weights > 0, terms * part.weights, 0.0).sum(1)


def partition(critic: Critic, weights: Weights, part: Part) -> Float[Tensor, "member"]:
    """Ln of the weighted mean of exp f over pairs of different rows, in nats, float64."""
    if not isinstance(critic, Separable):
        return part.x.new_zeros(len(part.x)).double()
    scores, share = all_scores(weights, part).double(), part.weights.double()
    logs, eye = share.log(), torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    pairs = (scores + logs[:, None, :] + logs[:, :, None]).masked_fill(eye, -torch.inf)
    return pairs.flatten(1).logsumexp(1) - torch.log1p(-share.square().sum(1))


def some_shifts(count: int, *stream: int) -> Int64[Tensor, "shift"]:
    """Random numbers that determine the distances of ``shifted``."""
    return (uniforms(count, *stream, SHIFT) * 2**31).long()


def shifted(part: Part, shifts: Int64[Tensor, "shift"]) -> list[Index]:
    """Indices of the y that each x is paired with, for every shift: never its own."""
    place = torch.arange(part.x.shape[1], device=part.x.device)
    counts = (part.weights > 0).sum(1, keepdim=True)
    # A turn by 1 to count - 1 places among the rows that count moves every row; padding stays.
    distances = [1 + int(one) % (counts - 1).clamp(min=1) for one in shifts]
    return [torch.where(place < counts, (place + one) % counts, place) for one in distances]


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

    ``scores`` are f of every x (rows) with every y (columns); ``weights`` sum to 1 in every member,
    and rows of weight 0 have no effect. Before ``nwj`` and ``smile``, ``level`` is subtracted from
    f: the log of the mean of exp f over other rows. The bound holds for any; it is sharpest at the
    log of the mean itself. ``clip`` is tau of ``smile``, in nats.
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
