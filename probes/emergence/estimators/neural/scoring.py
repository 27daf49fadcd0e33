"""Scores of critics with their reference: f(x, y) = g(x, y) + c(x, y) on rows of every member."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural import bounds, critics
from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.critics import Critic, Rows, Separable, Weights
from ed_interp.probes.emergence.estimators.neural.reference import Reference
from ed_interp.probes.emergence.estimators.neural.sampling import SHIFT, uniforms

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
        return cls(
            gathered(reference.x, rows).float(),
            gathered(reference.y, rows).float(),
            reference.left.float(),
            reference.of_x.gather(1, rows).float(),
            reference.of_y.gather(1, rows).float(),
            share.float(),
        )

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
    value = bounds.donsker_varadhan(joint, torch.cat(apart, dim=1))
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
    change = bounds.slope(scores, bound)
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
        return bounds.value_terms(scores, part.weights.double(), bound, level=level, clip=clip)
    share = part.weights.double()
    gain = critic.scores(weights, part.x, part.y).double()
    reference = bounds.value_terms(part.pairs().double(), share, "dv", level=level, clip=clip)
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
        both = bounds.without_diagonal(share[:, :, None] * share[:, None, :])
        apart = (lost(bounds.without_diagonal(scores)) * both).sum((1, 2)) / both.sum((1, 2))
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
