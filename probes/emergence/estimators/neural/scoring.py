"""Scores of critics with their reference: f(x, y) = g(x, y) + c(x, y) on rows of every member."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural.bounds import (
    Bound,
    donsker_varadhan,
    log_mean,
    slope,
    value_terms,
    without_diagonal,
)
from ed_interp.probes.emergence.estimators.neural.critics import (
    Critic,
    Separable,
    Weights,
    mlp,
    mlp_gradients,
)
from ed_interp.probes.emergence.estimators.neural.reference import Reference
from ed_interp.probes.emergence.estimators.neural.sampling import SHIFT, uniforms


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of every member, with the one-sided parts of the reference; float32."""

    x: Float[Tensor, "member row component"]
    y: Float[Tensor, "member row component"]
    left: Float[Tensor, "member component"]
    of_x: Float[Tensor, "member row"]
    of_y: Float[Tensor, "member row"]
    weights: Float[Tensor, "member row"]
    """Sum to 1; rows of weight 0 come last."""

    @classmethod
    def of(
        cls,
        reference: Reference,
        rows: Int64[Tensor, "member place"],
        weights: Float[Tensor, "member place"],
    ) -> Part:
        """The rows ``rows`` of the reference's members."""
        wide = rows[..., None].expand(-1, -1, reference.x.shape[2])
        return cls(
            reference.x.gather(1, wide).float(),
            reference.y.gather(1, wide).float(),
            reference.left.float(),
            reference.of_x.gather(1, rows).float(),
            reference.of_y.gather(1, rows).float(),
            (weights / weights.sum(1, keepdim=True)).float(),
        )

    def members(self, which: Tensor) -> Part:
        """Only these members."""
        return Part(*(getattr(self, field.name)[which] for field in dataclasses.fields(self)))

    def rows(self, index: Int64[Tensor, "member chosen"]) -> Part:
        """Rows drawn in proportion to their weights, so each counts alike."""
        wide = index[..., None].expand(-1, -1, self.x.shape[2])
        return Part(
            self.x.gather(1, wide),
            self.y.gather(1, wide),
            self.left,
            self.of_x.gather(1, index),
            self.of_y.gather(1, index),
            torch.full(index.shape, 1 / index.shape[1], device=index.device),
        )

    def other(self, index: Int64[Tensor, "member row"]) -> Part:
        """The same x beside other rows' y, which bring their weights."""
        wide = index[..., None].expand(-1, -1, self.y.shape[2])
        return dataclasses.replace(
            self,
            y=self.y.gather(1, wide),
            of_y=self.of_y.gather(1, index),
            weights=self.weights.gather(1, index),
        )

    def joint(self) -> Float[Tensor, "member row"]:
        """The reference g of x and y as they stand."""
        return (self.x * self.left[:, None] * self.y).sum(-1) + self.of_x + self.of_y

    def pairs(self) -> Float[Tensor, "member row row"]:
        """The reference g of every x with every y."""
        products = (self.x * self.left[:, None]) @ self.y.mT
        return products.add_(self.of_x[:, :, None]).add_(self.of_y[:, None, :])


def all_scores(critic: Separable, weights: Weights, part: Part) -> Float[Tensor, "member row row"]:
    """F of every x with every y, in one product."""
    first, second = critic.sides(weights, part.x, part.y)
    left = torch.cat([part.x * part.left[:, None], first[..., :-1]], dim=-1)
    right = torch.cat([part.y, second[..., :-1]], dim=-1)
    of_x, of_y = part.of_x + first[..., -1], part.of_y + second[..., -1]
    return torch.baddbmm(of_x[:, :, None] + of_y[:, None, :], left, right.mT)


def training_gradients(
    critic: Critic, weights: Weights, batch: Part, bound: Bound, shifts: Int64[Tensor, "shift"]
) -> Weights:
    """Derivatives of what the step of every member maximises."""
    if isinstance(critic, Separable):
        with torch.no_grad():
            return _separable_gradients(weights, batch, bound)
    leaves = {name: one.detach().requires_grad_() for name, one in weights.items()}
    joint = critic.scores(leaves, batch.x, batch.y) + batch.joint()
    apart = [
        critic.scores(leaves, other.x, other.y) + other.joint()
        for other in (batch.other(index) for index in shifted(batch, shifts))
    ]
    value = donsker_varadhan(joint, torch.cat(apart, dim=1))
    found = torch.autograd.grad(value.sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def _separable_gradients(weights: Weights, batch: Part, bound: Bound) -> Weights:
    first, second = mlp(weights, "x", batch.x), mlp(weights, "y", batch.y)
    # The last columns, u and v, stand beside a column of ones of the other side.
    left, right = first[-1].clone(), second[-1].clone()
    left[..., -1], right[..., -1] = 1, 1
    of_x, of_y = batch.of_x + first[-1][..., -1], batch.of_y + second[-1][..., -1]
    scores = torch.baddbmm(
        of_x[:, :, None] + of_y[:, None, :], batch.x * batch.left[:, None], batch.y.mT
    )
    scores.baddbmm_(left[..., :-1], right[..., :-1].mT)
    change = slope(scores, bound)
    return mlp_gradients(weights, "x", first, change @ right) | mlp_gradients(
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
        scores = all_scores(critic, weights, part).double()
        return value_terms(scores, part.weights.double(), bound, level=level, clip=clip)
    gain = critic.scores(weights, part.x, part.y).double()
    reference = value_terms(
        part.pairs().double(), part.weights.double(), "dv", level=level, clip=clip
    )
    # ln E_q e^(g+c) = ln E_q e^g, over all pairs, + ln of the mean of e^c weighted by e^g, over
    # some of them.
    with_gain, without, alone = [], [], []
    for index in shifted(part, shifts):
        other = part.other(index)
        base = other.joint().double() + (part.weights.double() * other.weights.double()).log()
        found = critic.scores(weights, other.x, other.y).double()
        with_gain.append(base + found)
        without.append(base)
        alone.append(index)
    above, below = (torch.stack(parts, 1) for parts in (with_gain, without))
    total = above.flatten(1).logsumexp(1)[:, None, None]
    base_total = below.flatten(1).logsumexp(1)[:, None, None]
    extra = (above - total).exp() - (below - base_total).exp()
    as_x = extra.sum(1) / part.weights.clamp(min=1e-30).double()
    as_y = torch.zeros_like(as_x)
    for place, index in enumerate(alone):
        as_y.scatter_add_(1, index, extra[:, place])
    as_y = as_y / part.weights.clamp(min=1e-30).double()
    return reference + gain - (total - base_total)[:, 0] - as_x - as_y


def stop_value(
    critic: Critic,
    weights: Weights,
    part: Part,
    bound: Bound,
    shifts: Int64[Tensor, "shift"],
) -> Float[Tensor, "member"]:
    """What early stopping watches, in nats: the value on rows that no step has seen.

    For ``nwj`` its optimum over a constant added to f, which is ``dv``; for ``smile``, which is no
    bound, the Jensen-Shannon objective that it is trained by.
    """
    if bound == "smile" and isinstance(critic, Separable):
        scores, share = all_scores(critic, weights, part), part.weights
        lost = torch.nn.functional.softplus
        both = without_diagonal(share[:, :, None] * share[:, None, :])
        apart = (lost(without_diagonal(scores)) * both).sum((1, 2)) / both.sum((1, 2))
        return -(lost(-scores.diagonal(dim1=1, dim2=2)) * share).sum(1) - apart
    watched: Bound = "infonce" if bound == "infonce" else "dv"
    none = part.x.new_zeros(len(part.x)).double()
    terms = held_out_terms(critic, weights, part, watched, clip=0.0, level=none, shifts=shifts)
    return weighted_mean(terms, part.weights)


def weighted_mean(
    terms: Float[Tensor, "member row"], weights: Float[Tensor, "member row"]
) -> Float[Tensor, "member"]:
    """Mean over rows; rows of weight 0 count nothing, whatever stands there."""
    return torch.where(weights > 0, terms * weights, 0.0).sum(1)


def partition(critic: Critic, weights: Weights, part: Part) -> Float[Tensor, "member"]:
    """Ln of the mean of exp f over separate pairs, in nats, double precision."""
    if isinstance(critic, Separable):
        return log_mean(all_scores(critic, weights, part).double(), part.weights.double())
    return part.x.new_zeros(len(part.x)).double()


def some_shifts(count: int, *stream: int) -> Int64[Tensor, "shift"]:
    """Random numbers from which ``shifted`` takes its distances."""
    return (uniforms(count, *stream, SHIFT) * 2**31).long()


def shifted(part: Part, shifts: Int64[Tensor, "shift"]) -> list[Int64[Tensor, "member row"]]:
    """Indices of the y that stand beside each x, for every shift: never its own."""
    place = torch.arange(part.x.shape[1], device=part.x.device)
    counts = (part.weights > 0).sum(1, keepdim=True)
    distances = [1 + int(one) % (counts - 1).clamp(min=1) for one in shifts]
    return [torch.where(place < counts, (place + one) % counts, place) for one in distances]
