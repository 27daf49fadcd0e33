"""Estimators that train a critic: from representations to terms, whatever is trained and how.

Rows that weigh nothing are dropped and rows equal at every site of a chain are one row of their
joint weight, so that no row is both trained on and held out. Pairs of white sides train together
in groups that fit ``max_bytes``.

Discrete populations have few different rows, each with a frequency. The token level of emergence
is of this kind: a place of the prompts holds, say, 25 different tokens, some more often than
others. A sample holds every one of them many times, so nothing can be held out (every held-out row
was also trained on), a fitted Gaussian or a distance to the nearest neighbour means nothing, and
the information is known exactly: it is that of the two discrete labels, ``sum w_xy log2 w_xy /
(w_x w_y)``, which is also what a critic trained on the repeated rows approaches from below.

When a population counts as discrete: by Good's estimate (Good, "The population frequencies of
species and the estimation of population parameters", Biometrika 1953), 1 - (rows seen once) /
(rows seen) is the chance that the next row has been seen before. A continuous variable never
repeats: 0. Above one half, on both sides, the rows are taken as atoms. So is a population of fewer
than ``LEAST_ROWS`` different rows, of which none could be held out. Cost: one pass over the rows.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.base import SATURATED_SHARE, Batch, ChainEstimator, Terms
from ed_interp.probes.emergence.estimators.rows import (
    counted_rows,
    entropy_bits,
    equal_in_all,
    equal_rows,
)
from ed_interp.progress import Progress, track

T = TypeVar("T", bound="TrainedEstimator")


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
    times = torch.ones(len(x)).double() if counts is None else counts.double()
    seen = [torch.bincount(labels, times) for labels in ids]
    # Good's estimate of the chance that the next row has been seen before, of both sides.
    return min(1.0 - float((own == 1).sum()) / float(own.sum()) for own in seen) > COVERED


def discrete_terms(
    x: Float[Tensor, "row d_x"], y: Float[Tensor, "row d_y"], weights: Float[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """Pointwise information of the labels in bits; ``weights`` sum to 1."""
    first, second = (torch.unique(equal_rows(t).cpu(), return_inverse=True)[1] for t in (x, y))
    # A number per pair of labels, as the digits of a number to the base of the second's count.
    both = torch.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]
    logs = [torch.bincount(own, weights)[own].log2() for own in (both, first, second)]
    # Rows of weight 0 may have labels of their own, whose logarithm is not finite.
    return torch.where(weights > 0, logs[0] - logs[1] - logs[2], 0.0)


def prepare(batch: Batch, white: Callable[[Tensor, Tensor], Tensor]) -> Chains:
    """Merge rows, find atoms, make every side white once (it serves two blocks).

    Whole-numbered weights are taken as numbers of times seen; ``white`` takes rows and weights to
    white coordinates, all of one width.
    """
    rows, counts = batch.weights.shape[-1], counts_of(batch.given)
    times = torch.ones(rows, dtype=torch.float64) if counts is None else counts
    prepared = Chains({}, {}, [], [])
    for element, (sites, own) in enumerate(batch.each()):
        counted, share, kept = counted_rows(sites, own)
        kept = [site.float() if site.element_size() < 4 else site for site in kept]
        joint = equal_in_all(map(equal_rows, kept)).cpu()
        firsts, point = torch.unique(joint, return_inverse=True)
        merged = torch.bincount(point, share)
        seen = torch.bincount(point, batch.flat(times)[element][counted])
        home = torch.full((rows,), -1)
        home[counted] = point
        prepared.homes.append(home)
        prepared.limits.append(entropy_bits(merged))
        points = [site[firsts.to(site.device)] for site in kept]
        sides: dict[int, Tensor] = {}
        for block, (x, y) in enumerate(itertools.pairwise(points)):
            if is_discrete(x, y, seen):
                prepared.exact[element, block] = discrete_terms(x, y, merged)
                continue
            # Each once, as a side serves two blocks.
            for index in {block, block + 1} - sides.keys():
                sides[index] = white(points[index], merged.to(x.device))
            prepared.pairs[element, block] = Pair(sides[block], sides[block + 1], merged)
    return prepared


def stack(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Float[Tensor, "pair point"]]:
    """x, y and weights, ``pair point ...``; shorter pairs end in rows of weight 0."""
    padded = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    x, y = padded([pair.x for pair in pairs]), padded([pair.y for pair in pairs])
    return x, y, padded([pair.weights for pair in pairs]).to(x.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one pair's training came to."""

    terms: Float[Tensor, "point"]
    """In nats, float64."""
    nats: float
    """The estimate: the weighted mean of the terms."""
    cap: float
    """ln of the number of rows valued together, which no value can be sure to exceed."""
    diverged: int
    """Trainings that diverged."""
    details: dict[str, float | int]
    """What is recorded of the training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedEstimator(ChainEstimator):
    """Base of estimators that train critics, all blocks and batch elements together."""

    flags: ClassVar[Mapping[str, str]] = {
        "discrete": "few different rows that repeat: the exact information of the labels, without "
        "training",
        "diverged": "a training of the critic diverged; its best earlier state was used",
        "at-log-n": "near the largest value that this estimator can return for this many rows",
    }
    together = True

    steps: int = option(1000, "Most training steps.", min=1)

    def reporting(self: T, progress: Progress) -> T:
        return self._copy(_progress=progress)

    def resuming(self: T, folder: str | Path | None) -> T:
        return self._copy(_folder=folder)

    @property
    def folder(self) -> str | Path | None:
        """Where the state of the training is kept; None for nowhere."""
        return getattr(self, "_folder", None)

    # The place of the state and the reporting of progress change no number, so they are no
    # options: set on a copy, they are neither recorded nor compared.
    def _copy(self: T, **attributes: Any) -> T:
        made = copy.copy(self)
        for name, value in attributes.items():
            object.__setattr__(made, name, value)
        return made

    @abc.abstractmethod
    def whiten(self, rows: Tensor, share: Tensor, width: int) -> Tensor:
        """Coordinates of one side to train on; ``width`` is that of the widest site."""

    @abc.abstractmethod
    def member_bytes(self, pair: Pair) -> int:
        """Memory that one pair takes in training."""

    @abc.abstractmethod
    def fit(
        self, pairs: Sequence[Pair], *, seed: int, max_bytes: int, advance: Callable[[int], None]
    ) -> list[Outcome]:
        """Train some pairs together."""

    def kind_of(self, pair: Pair) -> Hashable:
        """Only pairs of one kind can train together."""
        return None

    def raised(self, one: Outcome) -> dict[str, bool]:
        """Flags of one training."""
        return {"diverged": one.diverged > 0, "at-log-n": one.nats >= SATURATED_SHARE * one.cap}

    def run(self, batch: Batch, *, seed: int, max_bytes: int) -> Terms:
        width = max(site.shape[1] for site in batch.chains[0])
        prepared = prepare(batch, lambda rows, share: self.whiten(rows, share, width))
        groups = self._groups(prepared.pairs, max_bytes)
        outcomes: dict[Key, Outcome] = {}
        progress: Progress = getattr(self, "_progress", None)
        with track(progress, f"training {self.name}", self.steps * len(groups)) as advance:
            for keys in groups:
                pairs = [prepared.pairs[key] for key in keys]
                fitted = self.fit(pairs, seed=seed, max_bytes=max_bytes, advance=advance)
                outcomes |= dict(zip(keys, fitted, strict=True))
        flags = {name: batch.mask() for name in self.flags}
        # Nested lists "element block"; None where the rows are atoms and nothing was trained.
        details: dict[str, list[list[float | int | None]]] = {}
        for key in prepared.exact:
            flags["discrete"][key] = True
        for key, one in outcomes.items():
            for name, holds in self.raised(one).items():
                flags[name][key] = holds
            for name, value in one.details.items():
                table = details.setdefault(name, [[None] * batch.blocks for _ in batch.chains])
                table[key[0]][key[1]] = value
        trained = {key: one.terms / math.log(2) for key, one in outcomes.items()}
        bits = torch.zeros(*batch.mask().shape, batch.weights.shape[-1], dtype=torch.float64)
        # Terms of points given back to the rows; 0 for rows that weigh nothing.
        for key, values in (trained | prepared.exact).items():
            home = prepared.homes[key[0]]
            own = values.detach().cpu().double()[home.clamp(min=0)]
            bits[key] = torch.where(home >= 0, own, 0.0)
        bits = bits.to(batch.chains[0][0].device, torch.float32)
        return batch.result(bits, prepared.limits, self.recorded(seed=seed, **details), flags)

    def _groups(self, pairs: Mapping[Key, Pair], max_bytes: int) -> list[list[Key]]:
        """Which pairs train together: as many of one kind as fit, the shorter first."""
        groups: list[list[Key]] = []
        held, last = 0, None
        # By length: a pair is padded to the longest of its group.
        for key in sorted(pairs, key=lambda one: len(pairs[one].weights)):
            needed, kind = self.member_bytes(pairs[key]), self.kind_of(pairs[key])
            if not groups or kind != last or held + needed > max_bytes:
                groups.append([])
                held = 0
            groups[-1].append(key)
            held, last = held + needed, kind
        return groups
