"""Cross-fitting of some pairs together: folds, reference, training, held-out terms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.critics import Critic
from ed_interp.probes.emergence.estimators.neural.pairs import Pair, stack
from ed_interp.probes.emergence.estimators.neural.reference import (
    Reference,
    fit_reference,
    gaussian_nats,
    no_reference,
)
from ed_interp.probes.emergence.estimators.neural.sampling import SHUFFLE, fold_places, shuffled
from ed_interp.probes.emergence.estimators.neural.saving import Saved
from ed_interp.probes.emergence.estimators.neural.scoring import (
    Part,
    held_out_terms,
    partition,
    some_shifts,
)
from ed_interp.probes.emergence.estimators.neural.training import Plan, Trained, train


@dataclasses.dataclass(frozen=True)
class Fitting:
    """What to fit and how."""

    critic: Critic
    bound: Bound
    plan: Plan
    folds: int
    gaussian: bool
    """Start from the Gaussian reference."""
    debias: bool
    """Replace its held-out mean by its unbiased value."""
    clip: float
    """Tau of ``smile``, in nats."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One pair, in nats."""

    terms: Float[Tensor, "point"]
    nats: float
    """The estimate: the weighted mean of the terms."""
    held_out: float
    """The held-out value of the critic, without replacing the mean of its reference."""
    reference: float
    """The unbiased value of the Gaussian reference; 0 without one."""
    cap: float
    """ln of the number of rows valued together, which no held-out value can be sure to exceed."""
    step: int
    """The latest of the folds' best steps; 0 where no learned correction helped."""
    diverged: int
    """Folds whose training diverged."""


def cross_fit(
    pairs: Sequence[Pair],
    fitting: Fitting,
    *,
    seed: int,
    settings: Mapping[str, Any],
    folder: str | Path | None,
    max_bytes: int,
    advance: Callable[[int], None],
) -> list[Outcome]:
    """Fit all pairs together and value each fold with critics that have not seen it."""
    x, y, weights = stack(pairs)
    rows, shares = _folds(weights, fitting.folds, seed)
    reference = _reference(x, y, rows, shares, fitting)
    parts = [Part.of(reference, row, share) for row, share in zip(rows, shares, strict=True)]
    trained = _train(parts, fitting, len(pairs), seed, settings, folder, advance)
    terms = _held_out(parts, trained, fitting, seed, max_bytes)
    if fitting.gaussian:
        unbiased = gaussian_nats(x, y, weights).cpu()
    else:
        unbiased = torch.zeros(len(pairs), dtype=torch.float64)
    # Every row is held out once, so scattering the folds of a pair gives all its rows.
    spread, joint = (
        _scatter(part, rows[2], shares[2], weights, fitting.folds)
        for part in (terms, reference.joint().gather(1, rows[2]))
    )
    found = []
    for index, pair in enumerate(pairs):
        count, members = (
            len(pair.weights),
            slice(index * fitting.folds, (index + 1) * fitting.folds),
        )
        own, share = spread[index, :count].cpu(), pair.weights
        held_out = float(own @ share)
        if fitting.debias:
            own = own + unbiased[index] - joint[index, :count].cpu() @ share
        found.append(
            Outcome(
                terms=own,
                nats=float(own @ share),
                held_out=held_out,
                reference=float(unbiased[index]),
                cap=math.log(count / fitting.folds),
                step=int(trained.step[members].max()),
                diverged=int(trained.diverged[members].sum()),
            )
        )
    return found


def _folds(weights: Tensor, folds: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Rows and weights of (training, stopping, held-out) rows, ``member place``.

    Members are pairs by folds, the folds of a pair beside each other.
    """
    longest = weights.shape[1]
    counts = (weights > 0).sum(1).cpu()
    order = shuffled(counts, longest, seed, SHUFFLE).to(weights.device)
    order, weights = (table.repeat_interleave(folds, 0) for table in (order, weights))
    rows, shares = [], []
    for kind in zip(*(fold_places(longest, folds, fold) for fold in range(folds)), strict=True):
        # Folds differ by a row in size: the shorter get a place -1, which weighs nothing.
        places = torch.nn.utils.rnn.pad_sequence(list(kind), batch_first=True, padding_value=-1)
        places = places.to(weights.device).repeat(len(weights) // folds, 1)
        rows.append(order.gather(1, places.clamp(min=0)))
        shares.append(weights.gather(1, rows[-1]) * (places >= 0))
    return rows, shares


def _reference(
    x: Tensor, y: Tensor, rows: list[Tensor], shares: list[Tensor], fitting: Fitting
) -> Reference:
    x, y = (table.repeat_interleave(fitting.folds, 0) for table in (x, y))
    if not fitting.gaussian:
        return no_reference(x, y)
    train_on, stop_by = (
        torch.zeros_like(x[..., 0]).scatter_add_(1, row, share)
        for row, share in zip(rows[:2], shares[:2], strict=True)
    )
    return fit_reference(x, y, train_on, stop_by)


def _train(
    parts: list[Part],
    fitting: Fitting,
    pairs: int,
    seed: int,
    settings: Mapping[str, Any],
    folder: str | Path | None,
    advance: Callable[[int], None],
) -> Trained:
    width = parts[0].x.shape[2]
    start = fitting.critic.start(
        width, width, list(range(fitting.folds)) * pairs, seed=seed, neutral=fitting.gaussian
    )
    start = {name: one.to(parts[0].x.device) for name, one in start.items()}
    tensors = [part for side in parts[:2] for part in (side.x, side.y, side.weights)]
    return train(
        fitting.critic,
        start,
        parts[0],
        parts[1],
        fitting.bound,
        fitting.plan,
        seed=seed,
        saved=Saved(folder, tensors, settings),
        advance=advance,
    )


@torch.no_grad()
def _held_out(
    parts: list[Part], trained: Trained, fitting: Fitting, seed: int, max_bytes: int
) -> Float[Tensor, "member place"]:
    """Terms of the held-out rows, some members at a time: all pairs of rows take memory."""
    _, stop_by, held = parts
    members, places = held.weights.shape
    at_once = max(1, max_bytes // (places**2 * 8 * 6))
    shifts = some_shifts(4 * fitting.plan.shifts, seed)
    found = []
    for start in range(0, members, at_once):
        which = torch.arange(start, min(members, start + at_once), device=held.x.device)
        weights = {name: one[which] for name, one in trained.weights.items()}
        level = partition(fitting.critic, weights, stop_by.members(which))
        part = held.members(which)
        found.append(
            held_out_terms(
                fitting.critic,
                weights,
                part,
                fitting.bound,
                clip=fitting.clip,
                level=level,
                shifts=shifts,
            )
        )
    return torch.cat(found)


def _scatter(
    values: Tensor, rows: Tensor, shares: Tensor, weights: Tensor, folds: int
) -> Float[Tensor, "pair point"]:
    """Held-out values of the folds of each pair, put back at their rows."""
    pairs = len(weights)
    found = torch.zeros(pairs, weights.shape[1], dtype=torch.float64, device=weights.device)
    values = torch.where(shares > 0, values.double(), 0.0)
    return found.scatter_add_(1, rows.reshape(pairs, -1), values.reshape(pairs, -1))
