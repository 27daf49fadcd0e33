"""Cross-fitting of some pairs together: folds, reference, training, held-out terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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
    SHIFTS,
    Part,
    held_out_terms,
    partition,
    some_shifts,
)
from ed_interp.probes.emergence.estimators.neural.trained import Outcome
from ed_interp.probes.emergence.estimators.neural.training import Plan, Trained, train


def cross_fit(
    pairs: Sequence[Pair],
    plan: Plan,
    *,
    settings: Mapping[str, Any],
    folder: str | Path | None,
    max_bytes: int,
    advance: Callable[[int], None],
) -> list[Outcome]:
    """Fit all pairs together and value each fold with critics that have not seen it.

    Args:
        pairs: The pairs.
        plan: How to train and value them.
        settings: What a saved state must agree with, and the data.
        folder: Keeps the state; None for no folder.
        max_bytes: Memory of the valuation.
        advance: Called with the number of steps done.
    """
    x, y, weights = stack(pairs)
    rows, shares = _folds(weights, plan)
    reference = _reference(x, y, rows, shares, plan)
    parts = [Part.of(reference, row, share) for row, share in zip(rows, shares, strict=True)]
    width = parts[0].x.shape[2]
    streams = list(range(plan.folds)) * len(pairs)
    start = plan.critic.start(width, width, streams, seed=plan.seed, neutral=plan.gaussian)
    start = {name: one.to(x.device) for name, one in start.items()}
    data = [table for part in parts[:2] for table in (part.x, part.y, part.weights)]
    trained = train(start, *parts[:2], plan, saved=Saved(folder, data, settings), advance=advance)
    terms = _held_out(parts, trained, plan, max_bytes)
    unbiased = torch.zeros(len(pairs), dtype=torch.float64)
    if plan.gaussian:
        unbiased = gaussian_nats(x, y, weights).cpu()
    # Every row is held out once, so scattering the folds of a pair covers all its rows.
    spread, joint = (
        _scatter(part, rows[2], shares[2], weights)
        for part in (terms, reference.joint().gather(1, rows[2]))
    )
    # Members are pairs by folds.
    steps, diverged = (one.reshape(-1, plan.folds) for one in (trained.step, trained.diverged))
    outcomes = []
    for index, pair in enumerate(pairs):
        count, share = len(pair.weights), pair.weights
        own = spread[index, :count].cpu()
        held_out = float(own @ share)
        if plan.debias:
            own = own + unbiased[index] - joint[index, :count].cpu() @ share
        outcomes.append(
            Outcome(
                terms=own,
                nats=float(own @ share),
                held_out=held_out,
                reference=float(unbiased[index]),
                cap=math.log(count / plan.folds),
                best_step=int(steps[index].max()),
                diverged=int(diverged[index].sum()),
            )
        )
    return outcomes


def _folds(weights: Tensor, plan: Plan) -> tuple[list[Tensor], list[Tensor]]:
    """Rows and weights of (training, stopping, held-out) rows, ``member place``.

    Members are pairs by folds: the folds of a pair are neighbours.
    """
    longest, folds = weights.shape[1], plan.folds
    counts = (weights > 0).sum(1).cpu()
    order = shuffled(counts, longest, plan.seed, SHUFFLE).to(weights.device)
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
    x: Tensor, y: Tensor, rows: list[Tensor], shares: list[Tensor], plan: Plan
) -> Reference:
    x, y = (table.repeat_interleave(plan.folds, 0) for table in (x, y))
    if not plan.gaussian:
        return no_reference(x, y)
    # The held-out rows weigh 0 in both, so the reference has not seen them either.
    train_on, stop_by = (
        torch.zeros_like(x[..., 0]).scatter_add_(1, row, share)
        for row, share in zip(rows[:2], shares[:2], strict=True)
    )
    return fit_reference(x, y, train_on, stop_by)


@torch.no_grad()
def _held_out(
    parts: list[Part], trained: Trained, plan: Plan, max_bytes: int
) -> Float[Tensor, "member place"]:
    """Terms of the held-out rows, some members at a time: all pairs of rows take memory."""
    _, stop_by, held = parts
    members, places = held.weights.shape
    at_once = max(1, max_bytes // (places**2 * 8 * 6))
    # The value is reported, not only compared: more separate pairs than early stopping takes.
    shifts = some_shifts(4 * SHIFTS, plan.seed)
    terms = []
    for start in range(0, members, at_once):
        which = torch.arange(start, min(members, start + at_once), device=held.x.device)
        weights = {name: one[which] for name, one in trained.weights.items()}
        level = partition(plan.critic, weights, stop_by.members(which))
        part = held.members(which)
        terms.append(
            held_out_terms(
                plan.critic, weights, part, plan.bound, clip=plan.clip, level=level, shifts=shifts
            )
        )
    return torch.cat(terms)


def _scatter(
    values: Tensor, rows: Tensor, shares: Tensor, weights: Tensor
) -> Float[Tensor, "pair point"]:
    """Held-out values of the folds of each pair, put back at their rows."""
    pairs = len(weights)
    spread = torch.zeros(pairs, weights.shape[1], dtype=torch.float64, device=weights.device)
    # Padding places point at row 0 of the order and must add nothing to it, not even NaN.
    values = torch.where(shares > 0, values.double(), 0.0)
    return spread.scatter_add_(1, rows.reshape(pairs, -1), values.reshape(pairs, -1))
