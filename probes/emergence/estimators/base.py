"""What every mutual-information estimator is: its options, its flags, and what it returns.

An estimator works on a *chain* of representations of one population (the residual stream before
and after each block) and returns one pointwise term per block and row, in bits, whose weighted
mean is the estimate. Intervals, paired comparisons and the sharing of work between processes all
need the terms; a single number would not do. How to write one is in CONTRIBUTING.md.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.options import Options
from ed_interp.probes.emergence.estimators.rows import population_entropy, population_weights
from ed_interp.progress import Progress
from ed_interp.statistics import Interval, bootstrap_interval

# Not typing.Self, which run-time type checkers cannot resolve outside of a decorated class.
E = TypeVar("E", bound="Estimator")

DEFAULT_MAX_BYTES = 256 * 2**20
"""Working memory that an estimator may use, its input and output not counted."""

FEW_ROWS = 100
SATURATED_SHARE = 0.95
LOST_SHARE = 0.01

GENERAL_FLAGS = {
    "saturated": "the information is within 5% of the entropy of the sample: the rows stay "
    "distinct, but how much information there is cannot be read; use more prompts or more noise",
    "lost": "the information is not significantly above 0, or less than 1% of the entropy of the "
    "sample; try less noise",
    "constant": "one of the two representations is the same in every row, so the information is 0",
    "few-rows": f"fewer than {FEW_ROWS} distinct rows, so the interval is rough; use more prompts",
    "half-precision": "the model ran in half precision, which inflates the spread of tight clouds",
    "above-limit": "the information exceeds the entropy of the sample, which a fitted density can "
    "do although the sample does not hold more; read it as a ranking, not as bits",
}
"""Flags that :func:`flags_of` raises for any estimator, and what each means."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """Pointwise information between neighbouring sites of a chain, in bits."""

    terms: Float[Tensor, "*batch block row"]
    """Row terms; block ``b`` is the information between sites ``b`` and ``b + 1``. Rows of weight
    zero have the term 0."""
    weights: Float[Tensor, "*#batch row"]
    """The weights of the rows, float64 on the CPU, summing to 1."""
    limit: Float[Tensor, "*batch"]
    """Entropy of the population in bits (rows equal at every site count once): no estimate over
    this finite population can exceed it, whatever the network."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Everything needed to compute the same again: estimator, noise, samples, seed, ..."""
    flags: Mapping[str, Bool[Tensor, "*batch block"]] = dataclasses.field(default_factory=dict)
    """Where the estimator itself has reasons to doubt an estimate: flag name to mask, on the CPU.
    :attr:`Estimator.flags` says what each means."""

    def flags_at(self, *index: int) -> tuple[str, ...]:
        """Names of the flags that hold at one (batch..., block)."""
        return tuple(name for name, mask in self.flags.items() if bool(mask[index]))

    @property
    def bits(self) -> Float[Tensor, "*batch block"]:
        """The estimates: weighted means of the row terms, float64 on the CPU."""
        return (self.terms.cpu().double() * self.weights.unsqueeze(-2)).sum(-1)

    def intervals(self, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
        """Bootstrap intervals over the rows, arrays of shape ``*batch block``.

        Resampling the fixed row terms is right to first order and costs one small matrix product.
        """
        # Information is a functional of the population P, and its derivative in P is the row term:
        # with q the (smoothed) densities, I = E[log q(x,y) - log q(x) - log q(y)], so for a change
        # D of the population, dI = sum_i D_i t_i + E[dq(x,y)/q(x,y) - dq(x)/q(x) - dq(y)/q(y)],
        # and each expectation of dq/q is the integral of dq, which is 0 as sum_i D_i = 0.
        # Estimating anew on each resample would be worse as well as slower: a resample repeats
        # rows, which lowers the entropy of the population (by about 0.8 bits for a thousand rows),
        # hence every estimate near saturation.
        values = torch.movedim(self.terms.cpu().double(), -1, 0).numpy()
        weights = self.weights
        if weights.ndim > 1:
            weights = torch.movedim(weights, -1, 0).unsqueeze(-1)
        return bootstrap_interval(
            values, weights=weights.numpy(), level=level, resamples=resamples, seed=seed
        )


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some populations with equally many sites and rows, the chains of a batch laid flat."""

    chains: list[list[Tensor]]
    """Per element the sites ``row d``, whose widths may differ."""
    shape: tuple[int, ...]
    """The batch axes that callers see."""
    given: Tensor | None
    """Weights as callers gave them."""

    @functools.cached_property
    def weights(self) -> Float[Tensor, "*#batch row"]:
        """The same, summing to 1."""
        return population_weights(self.given, self.shape, len(self.chains[0][0]))

    @property
    def blocks(self) -> int:
        """Number of neighbouring pairs of sites."""
        return len(self.chains[0]) - 1

    def each(self) -> list[tuple[list[Tensor], Float[Tensor, "row"]]]:
        """The sites and the weights of every element."""
        return list(zip(self.chains, self.flat(self.weights), strict=True))

    def flat(self, weights: Float[Tensor, "*#batch row"]) -> Float[Tensor, "element row"]:
        """One line of weights for every element."""
        return weights.expand(*self.shape, -1).reshape(-1, weights.shape[-1])

    def mask(self) -> Bool[Tensor, "element block"]:
        """A flag that holds nowhere yet."""
        return torch.zeros(len(self.chains), self.blocks, dtype=torch.bool)

    def result(
        self,
        terms: Float[Tensor, "element block row"],
        limits: Sequence[float],
        settings: Mapping[str, Any],
        flags: Mapping[str, Bool[Tensor, "element block"]],
    ) -> Terms:
        """What callers get, with their batch axes."""
        return Terms(
            terms=terms.reshape(*self.shape, *terms.shape[1:]),
            weights=self.weights,
            limit=torch.tensor(limits, dtype=torch.float64).reshape(self.shape),
            settings=settings,
            flags={name: mask.reshape(*self.shape, -1) for name, mask in flags.items()},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimator(Options, abc.ABC):
    """Base of all estimators; the fields of a subclass, made by ``option``, are its options."""

    name: ClassVar[str] = ""
    """The name in the registry; set by :func:`~.registry.register`."""
    citation: ClassVar[str] = ""
    """The work that describes the method."""
    flags: ClassVar[Mapping[str, str]] = {}
    """Flags that only this estimator raises (see :attr:`Terms.flags`), and what each means."""
    together: ClassVar[bool] = False
    """Whether many populations cost less in one call of :meth:`chain`, as where critics train
    together, than one by one. Shorter populations are then padded with rows of weight 0."""

    @abc.abstractmethod
    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``.

        Args:
            x: Rows of one side.
            y: The same rows of the other side.
            weights: Frequencies of the rows, in any unit; rows of weight 0 have no effect.
            seed: Seed of the noise, the features or the training, if the estimator has any.
            max_bytes: Working memory.

        Raises:
            InvalidInputError: tables that do not fit, NaN or infinite values, bad weights.
        """

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites, for every batch element.

        Batch elements may be different populations, and the result does not depend on how a batch
        was cut; all else is as for :meth:`pair`.

        Raises:
            InvalidInputError: as :meth:`pair`, or fewer than two sites or rows.
        """
        check_chain(states)
        chains = [list(chain) for chain in states.reshape(-1, *states.shape[-3:])]
        batch = Batch(chains, tuple(states.shape[:-3]), weights)
        return self.run(batch, seed=seed, max_bytes=max_bytes)

    def run(self, batch: Batch, *, seed: int, max_bytes: int) -> Terms:
        """Terms of every chain: here, of one pair after the other."""
        # One seed for all: differences between blocks have less Monte Carlo error.
        pairs = [
            self.pair(x, y, weights=own, seed=seed, max_bytes=max_bytes)
            for sites, own in batch.each()
            for x, y in itertools.pairwise(sites)
        ]
        flags: dict[str, Tensor] = {}
        for place, pair in enumerate(pairs):
            for name, holds in pair.flags.items():
                flags.setdefault(name, batch.mask()).view(-1)[place] = holds
        limits = [population_entropy(sites, own) for sites, own in batch.each()]
        terms = torch.stack([pair.terms[0] for pair in pairs])
        terms = terms.reshape(len(batch.chains), batch.blocks, -1)
        return batch.result(terms, limits, pairs[0].settings, flags)

    def for_population(self: E, *, d: int, n: int) -> E:
        """The same, settings that depend on width and number of rows of a population definite."""
        return self

    def variants(self: E) -> tuple[tuple[float, E], ...]:
        """(relative noise, estimator) over a range of noise; empty where there is none to vary."""
        return ()

    @property
    def added_noise(self) -> float | None:
        """Standard deviation of the noise added to every coordinate; None where there is none."""
        return None

    def reporting(self: E, progress: Progress) -> E:
        """The same estimator, which reports its progress if it takes long."""
        return self

    def resuming(self: E, folder: str | Path | None) -> E:
        """The same estimator, which keeps its state in a folder and resumes from it, if it trains.

        Equal rows and options find their state again; anything else starts anew.
        """
        return self

    def recorded(self, **more: Any) -> dict[str, Any]:
        """The name and all options as plain data, for :attr:`Terms.settings`."""
        return {"estimator": self.name, **self.to_dict(), **more}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainEstimator(Estimator):
    """Base of estimators in which neighbouring blocks, or whole batches, share work."""

    @abc.abstractmethod
    def run(self, batch: Batch, *, seed: int, max_bytes: int) -> Terms: ...

    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``, which are a chain of two sites."""
        check_pair(x, y)
        return self.run(Batch([[x, y]], (), weights), seed=seed, max_bytes=max_bytes)


def check_pair(x: Tensor, y: Tensor) -> None:
    """Raise :class:`InvalidInputError` unless x and y are float tables of the same rows."""
    for name, table in (("x", x), ("y", y)):
        if table.ndim != 2:
            raise InvalidInputError(
                f"{name} must have the shape 'row d', got {tuple(table.shape)}; "
                f"a single column is {name}[:, None]"
            )
        check_chain(table.expand(2, *table.shape), name)
    if len(x) != len(y):
        raise InvalidInputError(
            f"x and y must have the same rows, got {len(x)} and {len(y)}; row i of both must be "
            "the same prompt"
        )


def check_chain(states: Tensor, name: str = "states") -> None:
    """Raise :class:`InvalidInputError` unless ``states`` is a batch of chains of float rows."""
    if states.ndim < 3:
        raise InvalidInputError(
            f"states must have the shape '*batch site row d', got {tuple(states.shape)}; "
            "stack the sites in front of the rows"
        )
    if not states.is_floating_point():
        raise InvalidInputError(
            f"{name} must be floating point, got {states.dtype}; convert with .float()"
        )
    sites, rows, width = states.shape[-3:]
    if sites < 2 or rows < 2 or width < 1 or states.numel() == 0:
        raise InvalidInputError(
            f"{name} must have at least 2 sites, 2 rows and 1 column, got {sites} sites, "
            f"{rows} rows and {width} columns (batch {tuple(states.shape[:-3])})"
        )


def flags_of(
    *,
    bits: float,
    ci_low: float,
    limit: float,
    rows: int,
    constant: bool = False,
    half_precision: bool = False,
    own: Sequence[str] = (),
) -> tuple[str, ...]:
    """What a reader must know before believing an estimate (see :data:`GENERAL_FLAGS`).

    ``own`` are the estimator's own flags of this value (:attr:`Terms.flags`), which come last.
    """
    if not math.isfinite(bits):
        raise InvalidInputError(f"the estimate must be a finite number of bits, got {bits}")
    holds = {
        "saturated": limit > 0 and bits >= SATURATED_SHARE * limit,
        # The information of a constant side is 0 by necessity; nothing was lost on the way.
        "lost": not constant and (ci_low <= 0 or bits < LOST_SHARE * limit),
        "constant": constant,
        "few-rows": rows < FEW_ROWS,
        "half-precision": half_precision,
        # The interval, not the value: an estimate near saturation is above by chance half the time.
        "above-limit": limit > 0 and ci_low > limit,
    }
    return (*(name for name, raised in holds.items() if raised), *own)
