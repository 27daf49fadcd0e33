"""What every mutual-information estimator gives, and what it has to offer.

An estimator answers for a *chain* of representations of the same population (the residual stream
before and after each block) and returns one pointwise term per block and row, in bits, whose
weighted mean is the estimate. The terms are what intervals, paired comparisons and the sharing of
work between processes need; a single number would be enough for none of them.

A third party writes a class with ``pair`` (and ``chain``, if neighbours can share work; else it
inherits :class:`PairEstimator`) and names it in the entry-point group ``ed_interp.estimators``.
Options of one estimator (noise, neighbours, learning rate) belong to its constructor, so that
callers of ``chain`` need not know which estimator they hold.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.rows import population_entropy, population_weights
from ed_interp.statistics import Interval, bootstrap_interval

DEFAULT_MAX_BYTES = 256 * 2**20
"""Working memory that an estimator may use beside its input and output."""

FEW_ROWS = 100
SATURATED_SHARE = 0.95
LOST_SHARE = 0.01


@dataclass(frozen=True)
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Everything needed to compute the same again: estimator, noise, samples, seed, ..."""
    flags: Mapping[str, Bool[Tensor, "*batch block"]] = field(default_factory=dict)
    """Where the estimator itself has reasons to doubt an estimate: flag name to mask, on the CPU.
    The names and their meaning stand in ``curve.FLAGS``."""

    def flags_at(self, *index: int) -> tuple[str, ...]:
        """Names of the flags that hold at one (batch..., block)."""
        return tuple(name for name, mask in self.flags.items() if bool(mask[index]))

    @property
    def bits(self) -> Float[Tensor, "*batch block"]:
        """The estimates: weighted means of the row terms, float64 on the CPU."""
        return (self.terms.cpu().double() * self.weights.unsqueeze(-2)).sum(-1)

    def intervals(self, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
        """Bootstrap intervals over the rows, arrays of shape ``*batch block``.

        Information is a functional of the population P, and its derivative in P is the row term:
        with q the (smoothed) densities, I = E[log q(x,y) - log q(x) - log q(y)], so for a change D
        of the population, dI = sum_i D_i t_i + E[dq(x,y)/q(x,y) - dq(x)/q(x) - dq(y)/q(y)], and
        each expectation of dq/q is the integral of dq, which is 0 as sum_i D_i = 0.

        So resampling the fixed row terms is right to first order and costs one small matrix
        product. Estimating anew on each resample would be worse as well as slower: a resample
        repeats rows, which lowers the entropy of the population (by about 0.8 bits for a thousand
        rows), hence every estimate near saturation.
        """
        values = torch.movedim(self.terms.cpu().double(), -1, 0).numpy()
        weights = self.weights
        if weights.ndim > 1:
            weights = torch.movedim(weights, -1, 0).unsqueeze(-1)
        return bootstrap_interval(
            values, weights=weights.numpy(), level=level, resamples=resamples, seed=seed
        )


@dataclass(frozen=True)
class Estimate:
    """The mutual information of one pair of representations."""

    bits: float
    ci_low: float
    """Lower end of the 95% bootstrap interval over rows, in bits."""
    ci_high: float
    limit: float
    """Entropy of the population in bits."""
    flags: tuple[str, ...]
    """Those of :func:`flags_of`, and the estimator's own."""
    terms: Float[Tensor, "row"]
    """Pointwise information of each row, in bits."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Estimator(Protocol):
    """What the emergence pipeline calls."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        ...

    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``."""
        ...

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites, for every batch element."""
        ...


class PairEstimator(abc.ABC):
    """Base of estimators that know only pairs: the chain is a loop over neighbours."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name in the registry."""

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
        """Information between ``x`` and ``y``: terms of shape ``1 row``."""

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites, one ``pair`` at a time.

        Every block and batch element gets the same seed, so that the result does not depend on how
        a batch was cut, and differences between blocks have less Monte Carlo error.
        """
        check_chain(states)
        batch, (sites, rows) = states.shape[:-3], states.shape[-3:-1]
        normal = population_weights(weights, batch, rows)
        flat = states.reshape(-1, *states.shape[-3:])
        flat_weights = normal.expand(*batch, rows).reshape(-1, rows)
        found = [
            self.pair(
                chain[site], chain[site + 1], weights=row_weights, seed=seed, max_bytes=max_bytes
            )
            for chain, row_weights in zip(flat, flat_weights, strict=True)
            for site in range(sites - 1)
        ]
        limits = [
            population_entropy(chain, row_weights)
            for chain, row_weights in zip(flat, flat_weights, strict=True)
        ]
        return Terms(
            terms=torch.stack([one.terms[0] for one in found]).reshape(*batch, sites - 1, rows),
            weights=normal,
            limit=torch.tensor(limits, dtype=torch.float64).reshape(batch),
            settings=found[0].settings,
            flags=_joined([one.flags for one in found], (*batch, sites - 1)),
        )


def _joined(
    found: Sequence[Mapping[str, Tensor]], shape: tuple[int, ...]
) -> dict[str, Bool[Tensor, "*batch block"]]:
    """Flags of single pairs as masks over all of them."""
    names = dict.fromkeys(name for flags in found for name in flags)
    none = torch.zeros(1, dtype=torch.bool)
    return {
        name: torch.cat([flags.get(name, none).reshape(1) for flags in found]).reshape(shape)
        for name in names
    }


def check_pair(x: Tensor, y: Tensor) -> None:
    """Raise :class:`InvalidInputError` unless x and y are finite float tables of the same rows."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InvalidInputError(
            "a pair needs two tables with one row per prompt, found shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    for table, name in ((x, "x"), (y, "y")):
        check_chain(table.expand(2, *table.shape))
        if not bool(torch.isfinite(table).all()):
            raise InvalidInputError(
                f"{name} holds NaN or infinite values; drop those rows, or capture in float32"
            )


def check_chain(states: Tensor) -> None:
    """Raise :class:`InvalidInputError` unless ``states`` is a batch of chains of float rows."""
    if states.ndim < 3:
        raise InvalidInputError(
            f"states need the shape '*batch site row d', found {tuple(states.shape)}; "
            "stack the sites in front of the rows"
        )
    if not states.is_floating_point():
        raise InvalidInputError(
            f"states must be floating point, found {states.dtype}; convert them with .float()"
        )
    sites, rows, width = states.shape[-3:]
    if sites < 2 or rows < 2 or width < 1 or states.numel() == 0:
        raise InvalidInputError(
            f"information needs at least 2 sites, 2 rows and 1 column, found {sites} sites, "
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
    """What a reader must know before believing an estimate; values in bits.

    ``saturated``: within 5% of the entropy of the population, so it says little of the network.
    ``lost``: the interval reaches 0, or less than 1% of that entropy came through the noise.
    ``constant``: one of the two representations is the same in every row, the information is 0.
    ``few-rows``: fewer than 100 rows, so the interval is rough.
    ``half-precision``: the states were 16-bit floats, which spreads tight clouds.
    ``above-limit``: above that entropy: a model of densities sees more in a finite population
    than there is to tell its rows apart.

    ``own`` are the estimator's own flags of this value (:attr:`Terms.flags`), which come last.
    """
    found = {
        "saturated": limit > 0 and bits >= SATURATED_SHARE * limit,
        "lost": not constant and (ci_low <= 0 or bits < LOST_SHARE * limit),
        "constant": constant,
        "few-rows": rows < FEW_ROWS,
        "half-precision": half_precision,
        "above-limit": limit > 0 and ci_low > limit,
    }
    if not math.isfinite(bits):
        raise InvalidInputError(f"the estimate is {bits}, not a number of bits")
    return (*(name for name, holds in found.items() if holds), *own)
