"""Estimators that train a critic: from representations to terms, whatever is trained and how.

Atoms are exact; the other pairs train together in groups that fit ``max_bytes``.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.base import SATURATED_SHARE, Batch, ChainEstimator, Terms
from ed_interp.probes.emergence.estimators.neural.pairs import Key, Pair, grouped, prepare
from ed_interp.progress import Progress, track

T = TypeVar("T", bound="TrainedEstimator")


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
        groups = grouped(prepared.pairs, self.member_bytes, max_bytes, self.kind_of)
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
        bits = prepared.rows({key: one.terms / math.log(2) for key, one in outcomes.items()})
        bits = bits.to(batch.chains[0][0].device, torch.float32)
        return batch.result(bits, prepared.limits, self.recorded(seed=seed, **details), flags)
