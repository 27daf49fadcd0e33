r"""Estimators by the held-out value of a trained critic.

Cross-fitting: the rows are cut into folds; for every fold a critic is trained on the others (four
fifths of them to train on, one fifth to stop by) and valued on the fold. So every row has a term
from a critic that has not seen it, and no row is wasted.

The critic is f = g + c: the log density ratio g of fitted Gaussians (``reference``) and a learned
correction c. The estimate is

    E_all[g*] + E_held[c] - (the bound's second term, of f)       (debias=True, the default)
    E_held[g + c] - (the bound's second term, of f)               (debias=False)

where E_all[g*] is the information of the Gaussian with the population's covariance, estimated
without bias. The second form is a lower bound in expectation; its shortfall has two parts: what the
critic cannot express, and that the d_x d_y correlations of g were fitted on finitely many rows. The
second part is known, and the first form removes it. ``settings`` holds both.

What a learned critic alone does at 64 dimensions and 5,000 rows: 0.2 nats of 2.0 (measured).

Cost: ``folds`` trainings per pair, all together (see ``training``), and one valuation of all pairs
of held-out rows per fold. Memory: ``max_bytes`` says how many pairs train together.

What differs from the papers of these bounds: held-out value instead of the training value, early
stopping, the reference, normal marginals and leading components (``reference``), and all separate
pairs of a batch instead of one permutation where the critic allows it.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.neural import sampling, scoring
from ed_interp.probes.emergence.estimators.neural.critics import Critic, Separable, Weights
from ed_interp.probes.emergence.estimators.neural.reference import (
    Marginals,
    fit_reference,
    gaussian_nats,
    no_reference,
    white,
)
from ed_interp.probes.emergence.estimators.neural.trained import (
    Outcome,
    Pair,
    TrainedEstimator,
    stack,
)
from ed_interp.probes.emergence.estimators.neural.training import Saved, Schedule, Training

_LEAST_BATCH = 4
_MANY_ROWS = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut(TrainedEstimator, Schedule, abc.ABC):
    """What the estimators of held-out value share; see the module."""

    bound: ClassVar[scoring.Bound]
    """Which bound is trained and reported."""

    folds: int = option(3, "Parts of the rows that are held out in turn.", min=2)
    components: int = option(64, "Leading principal components kept of each side.", min=1)
    marginals: Marginals = option(
        "normal", "Coordinates as normal scores of their ranks (normal) or as they are (raw)."
    )
    reference: Literal["gaussian", "none"] = option(
        "gaussian", "What the critic starts from: a fitted Gaussian, or nothing."
    )
    debias: bool = option(True, "Replace the held-out mean of the reference by its unbiased value.")

    def critic(self, rows: int) -> Critic:
        """The architecture for that many rows."""
        return Separable((64, 64) if rows >= _MANY_ROWS else (32, 32))

    def clip(self) -> float:
        """Tau of ``smile``, in nats."""
        return 0.0

    def whiten(self, rows: Tensor, share: Tensor, width: int) -> Tensor:
        components = min(self.components, width)
        return white(rows, share, components=components, marginals=self.marginals)

    def fit(
        self, pairs: Sequence[Pair], *, seed: int, max_bytes: int, advance: Callable[[int], None]
    ) -> list[Outcome]:
        critic, gaussian = self.critic(len(pairs[0].weights)), self.reference == "gaussian"
        x, y, weights = stack(pairs)
        rows, shares = _folds(weights, self.folds, seed)
        wide_x, wide_y = (table.repeat_interleave(self.folds, 0) for table in (x, y))
        reference = no_reference(wide_x, wide_y)
        if gaussian:
            # The held-out rows weigh 0 in both, so the reference has not seen them either.
            train_on, stop_by = (
                torch.zeros_like(wide_x[..., 0]).scatter_add_(1, row, share)
                for row, share in zip(rows[:2], shares[:2], strict=True)
            )
            reference = fit_reference(wide_x, wide_y, train_on, stop_by)
        parts = [scoring.Part.of(reference, *one) for one in zip(rows, shares, strict=True)]
        width, streams = x.shape[2], list(range(self.folds)) * len(pairs)
        start = critic.start(width, width, streams, seed=seed, neutral=gaussian)
        data = [table for part in parts[:2] for table in (part.x, part.y, part.weights)]
        start = {name: one.to(x.device) for name, one in start.items()}
        schedule = dataclasses.replace(self, batch=self._batch(pairs[0]))
        training = Training(critic, self.bound, start, parts[:2], schedule, seed)
        training.run(Saved(self.folder, data, self.recorded(seed=seed)), advance)
        terms = self._held_out(critic, training.best, parts, seed, max_bytes)
        unbiased = gaussian_nats(x, y, weights).cpu() if gaussian else torch.zeros(len(pairs))
        # Every row is held out once, so scattering the folds of a pair covers all its rows.
        spread, joint = (
            _scatter(part, rows[2], shares[2], weights)
            for part in (terms, reference.joint().gather(1, rows[2]))
        )
        # Members are pairs by folds.
        steps = training.best_step.reshape(-1, self.folds)
        diverged = training.diverged.reshape(-1, self.folds)
        outcomes = []
        for index, pair in enumerate(pairs):
            count, share = len(pair.weights), pair.weights
            own = spread[index, :count].cpu()
            held_out = float(own @ share)
            if gaussian and self.debias:
                own = own + unbiased[index] - joint[index, :count].cpu() @ share
            lost, cap = int(diverged[index].sum()), math.log(count / self.folds)
            # The value of the critic before the mean of its reference was replaced; the unbiased
            # value of the reference, 0 without one; the latest step of all folds, 0 is the start.
            details = {
                "held_out_bits": held_out / math.log(2),
                "reference_bits": float(unbiased[index]) / math.log(2),
                "best_step": int(steps[index].max()),
                "diverged_folds": lost,
            }
            nats = float(own @ share)
            outcomes.append(Outcome(terms=own, nats=nats, cap=cap, diverged=lost, details=details))
        return outcomes

    @torch.no_grad()
    def _held_out(
        self, critic: Critic, weights: Weights, parts: list[scoring.Part], seed: int, max_bytes: int
    ) -> Float[Tensor, "member place"]:
        """Terms of the held-out rows, some members at a time: all pairs of rows take memory."""
        _, stop_by, held = parts
        members, places = held.weights.shape
        # The value is reported, not only compared: more separate pairs than early stopping takes.
        shifts = scoring.some_shifts(4 * scoring.SHIFTS, seed)
        value = functools.partial(
            scoring.held_out_terms, critic, bound=self.bound, clip=self.clip(), shifts=shifts
        )
        at_once = max(1, max_bytes // (places**2 * 8 * 6))
        terms = []
        for first in range(0, members, at_once):
            which = torch.arange(first, min(members, first + at_once))
            own = {name: one[which] for name, one in weights.items()}
            level = scoring.partition(critic, own, stop_by.members(which))
            terms.append(value(weights=own, part=held.members(which), level=level))
        return torch.cat(terms)

    def kind_of(self, pair: Pair) -> tuple[int, bool]:
        """Size of the minibatch and of the critic."""
        return self._batch(pair), len(pair.weights) >= _MANY_ROWS

    def _batch(self, pair: Pair) -> int:
        """Rows of a minibatch: a power of 2, so that pairs of like length can train together."""
        train = len(pair.weights) * (1 - 1 / self.folds) * (1 - 1 / sampling.VALIDATION_EVERY)
        return min(self.batch, max(_LEAST_BATCH, 1 << int(math.log2(max(1.0, train / 4)))))

    def member_bytes(self, pair: Pair) -> int:
        """Rows of both sides in float64 and float32, five copies of the weights, one batch."""
        columns = pair.x.shape[1] + pair.y.shape[1]
        rows, critic = len(pair.weights) * columns * 12, columns * max(columns, 64) * 20
        return self.folds * (rows + critic + 12 * self.batch**2)


def _folds(weights: Tensor, folds: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Rows and weights of (training, stopping, held-out) rows, ``member place``."""
    # Members are pairs by folds: the folds of a pair are neighbours.
    longest = weights.shape[1]
    counts = (weights > 0).sum(1).cpu()
    order = sampling.shuffled(counts, longest, seed, sampling.SHUFFLE).to(weights.device)
    order, weights = (table.repeat_interleave(folds, 0) for table in (order, weights))
    rows, shares = [], []
    cut = (sampling.fold_places(longest, folds, fold) for fold in range(folds))
    for kind in zip(*cut, strict=True):
        # Folds differ by a row in size: the shorter get a place -1, which weighs nothing.
        places = torch.nn.utils.rnn.pad_sequence(list(kind), batch_first=True, padding_value=-1)
        places = places.to(weights.device).repeat(len(weights) // folds, 1)
        rows.append(order.gather(1, places.clamp(min=0)))
        shares.append(weights.gather(1, rows[-1]) * (places >= 0))
    return rows, shares


def _scatter(
    values: Tensor, rows: Tensor, shares: Tensor, weights: Tensor
) -> Float[Tensor, "pair point"]:
    """Held-out values of the folds of each pair, put back at their rows."""
    spread = torch.zeros_like(weights, dtype=torch.float64)
    # Padding places point at row 0 of the order and must add nothing to it, not even NaN.
    values = torch.where(shares > 0, values.double(), 0.0)
    return spread.scatter_add_(1, rows.view(len(weights), -1), values.view(len(weights), -1))
