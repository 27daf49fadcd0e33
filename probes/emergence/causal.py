r"""Causal emergence and O-information of Gaussian systems, and along the residual stream.

Rosas, Mediano, Jensen, Seth, Barrett, Carhart-Harris and Bor, "Reconciling emergences" (PLoS
Computational Biology 2020): a macroscopic feature V of parts X^1 ... X^n is causally emergent if
it predicts its own future better than the parts one by one do:

    Psi   = I(V; V') - sum_j I(X^j; V')                 > 0 is sufficient for causal emergence
    Delta = max_j ( I(V; X'^j) - sum_i I(X^i; X'^j) )   > 0 for downward causation
    Gamma = max_j I(V; X'^j)                            = 0 (with Psi > 0) for causal decoupling

Rosas, Mediano, Gastpar and Jensen, "Quantifying high-order interdependencies via multivariate
extensions of the mutual information" (Physical Review E 2019): O-information, total correlation
less dual total correlation; above 0 redundancy dominates, below 0 synergy.

All follow from one covariance matrix. The parts are counted as if independent, so common
information is subtracted many times: with redundant parts Psi is below 0 and decides nothing.

Bias: every logarithm of a sample covariance is off by a known amount for Gaussian rows (see the
estimator ``gaussian``), which is subtracted from each term; Delta and Gamma are maxima over parts,
and their maximum of noisy terms is a little high. Rows that are not Gaussian: only their linear
dependence is seen.

Along the stream, from captured activations: a block is the step, parts are directions of the stream
before and after the block. By default they are the leading principal components of all sites
together, so that every block is measured in the same parts, and V is the first of them.

>>> activations = ed_interp.capture(model, population)  # doctest: +SKIP
>>> causal_profile(activations, shots=8).to_frame()  # doctest: +SKIP

Cost: ``n (2 d)^2`` operations for the covariance, then ``d^3``; along the stream a covariance of
``site * prompt`` rows and ``d_model`` columns, then microseconds a block.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.charts.spec import Chart, Line, Panel, Rule
from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators import gaussian
from ed_interp.probes.emergence.estimators.base import check_pair
from ed_interp.probes.emergence.estimators.noise import normalise
from ed_interp.probes.emergence.estimators.rows import check_finite, population_weights
from ed_interp.probes.emergence.estimators.tables import scaled
from ed_interp.results import Result
from ed_interp.tables import Table, plain_table

DEFAULT_PARTS = 16

_LOG2 = math.log(2)
# Squared correlations nearer to 1 are 1 but for rounding.
_CEILING = 1 - 1e-10


@dataclasses.dataclass(frozen=True)
class CausalEmergence:
    """Psi, Delta and Gamma of one transition, in bits."""

    psi: float
    delta: float
    gamma: float
    macro: float
    """I(V; V')."""
    parts: float
    """Sum over parts of I(X^j; V')."""
    n_parts: int
    n_macro: int
    """Columns of V."""


@dataclasses.dataclass(frozen=True)
class OInformation:
    """O-information of one set of columns, in bits."""

    bits: float
    """Total correlation less dual total correlation."""
    total_correlation: float
    dual_total_correlation: float
    n_parts: int


@torch.no_grad()
def causal_emergence(
    before: Float[Tensor, "row part"],
    after: Float[Tensor, "row part_after"],
    *,
    macro: Float[Tensor, "direction feature"] | int = 1,
    weights: Shaped[Tensor, "row"] | None = None,
) -> CausalEmergence:
    """Psi, Delta and Gamma of the step from ``before`` to ``after``.

    Args:
        before: The parts, one column each.
        after: The same parts a step later, of the same rows.
        macro: V as a projection of the parts, used before and after; or how many leading
            principal directions of ``before`` to take.
        weights: Frequencies of the rows.

    Raises:
        InvalidInputError: tables that do not fit, NaN or infinite values, fewer rows than 3 more
            than the columns of V, or a projection of another width.
    """
    _check(before, after)
    if before.shape[1] != after.shape[1]:
        raise InvalidInputError(
            f"before and after must have the same parts, got {before.shape[1]} and "
            f"{after.shape[1]} columns"
        )
    share = population_weights(weights, (), len(before)).to(before.device)
    first, second = (z.detach().double() - share @ z.detach().double() for z in (before, after))
    width = first.shape[1]
    if isinstance(macro, int):
        if not 1 <= macro <= width:
            raise InvalidInputError(
                f"macro must be between 1 and {width} principal directions, got {macro}"
            )
        projection = torch.linalg.eigh((first * share[:, None]).T @ first)[1][:, -macro:]
    else:
        projection = macro.detach().to(first)
        if projection.ndim != 2 or projection.shape[0] != width:
            raise InvalidInputError(
                f"macro must have the shape ({width}, columns), got {tuple(projection.shape)}"
            )
    features, dof = projection.shape[1], gaussian.degrees_of_freedom(share)
    # V before and after have twice as many columns, whose covariance must have full rank.
    if dof < 2 * features + 2:
        raise InvalidInputError(
            f"{features} macroscopic columns must have more than {2 * features + 2} rows, got "
            f"{dof + 1:.0f}"
        )
    v, w = _white(first @ projection, share), _white(second @ projection, share)
    x, y = scaled(first, share), scaled(second, share)
    joint = torch.linalg.svdvals(_correlations(v, w, share)).square()
    chance = gaussian.chance_nats(v.shape[1], w.shape[1], dof)
    macro_bits = (float(_nats(joint).sum()) - chance) / _LOG2
    to_macro, from_macro = _each_bits(x, w, share, dof), _each_bits(y, v, share, dof)
    # "column of x, column of y": information of the two.
    pairs = (_nats(_correlations(x, y, share).square()) - gaussian.chance_nats(1, 1, dof)) / _LOG2
    downward = from_macro - pairs.sum(0)
    return CausalEmergence(
        psi=macro_bits - float(to_macro.sum()),
        # A part that never varies neither has nor gets any information.
        delta=float(downward.max()) if len(downward) else 0.0,
        gamma=float(from_macro.max()) if len(from_macro) else 0.0,
        macro=macro_bits,
        parts=float(to_macro.sum()),
        n_parts=width,
        n_macro=features,
    )


@torch.no_grad()
def o_information(
    parts: Float[Tensor, "row part"], *, weights: Shaped[Tensor, "row"] | None = None
) -> OInformation:
    """O-information of the columns, and the two correlations whose difference it is.

    With h the entropies, TC = sum_j h(X_j) - h(X) and DTC = h(X) - sum_j h(X_j | rest); for a
    Gaussian, h(X_j | rest) is that of variance 1 over the j-th diagonal of the precision matrix.

    Raises:
        InvalidInputError: NaN or infinite values, fewer than 3 columns that vary, or not more rows
            than columns.
    """
    _check(parts)
    share = population_weights(weights, (), len(parts)).to(parts.device)
    table, dof = scaled(parts, share), gaussian.degrees_of_freedom(share)
    width = table.shape[1]
    if width < 3:
        raise InvalidInputError(
            f"parts must have at least 3 columns that vary, got {width} of {parts.shape[1]}"
        )
    if dof <= width:
        raise InvalidInputError(
            f"{width} columns must have more than {width + 1} rows, got {dof + 1:.0f}; project "
            "them to fewer columns first"
        )
    covariance = (table * share[:, None]).T @ table
    values, vectors = torch.linalg.eigh(covariance)
    if float(values[0]) <= 1e-12 * float(values[-1]):
        raise InvalidInputError(
            "no column may be a sum of others, or their information is infinite; project the "
            "columns to their principal components first"
        )
    precision = (vectors / values) @ vectors.T
    # Log determinants of the covariance, of each column alone, and of each given the others; every
    # one of them without the bias of its number of columns.
    bias = functools.partial(gaussian.log_determinant_bias, dof=dof)
    whole, rest = float(values.log().sum()) - bias(width), bias(width) - bias(width - 1)
    alone = float(torch.diagonal(covariance).log().sum()) - width * bias(1)
    conditional = -float(torch.diagonal(precision).log().sum()) - width * rest
    total, dual = 0.5 * (alone - whole) / _LOG2, 0.5 * (whole - conditional) / _LOG2
    return OInformation(total - dual, total, dual, width)


def _check(*sites: Tensor) -> None:
    check_pair(sites[0], sites[-1])
    for index, site in enumerate(sites):
        check_finite(site, index)


def _white(table: Tensor, share: Tensor) -> Tensor:
    """Coordinates of unit variance without correlation; directions without variance dropped."""
    values, vectors = torch.linalg.eigh((table * share[:, None]).T @ table)
    # Rounding leaves about 1e-16 of the largest where there is no variance.
    kept = values > 1e-12 * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    white: Tensor = table @ (vectors[:, kept] / values[kept].sqrt())
    return white


def _nats(squared: Tensor) -> Tensor:
    """Information of pairs of Gaussian variables in nats, from their squared correlations."""
    return -0.5 * torch.log1p(-squared.clamp(max=_CEILING))


def _correlations(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """``column of x, column of y``; both sides are scaled."""
    return (x * share[:, None]).T @ y


def _each_bits(x: Tensor, w: Tensor, share: Tensor, dof: float) -> Tensor:
    """Information of every column of ``x`` with all of ``w``, from its multiple correlation."""
    squared = _correlations(x, w, share).square().sum(1)
    return (_nats(squared) - gaussian.chance_nats(1, w.shape[1], dof)) / _LOG2


@runtime_checkable
class Captured(Protocol):
    """Captured activations, as far as they are needed here."""

    def at(self, shots: int) -> Float[Tensor, "prompt site d_model"]:
        """States at the last token, per prompt and site."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class CausalRow:
    """Measures of one block, in bits; fields as in ``CausalEmergence`` and ``OInformation``."""

    layer: int
    psi: float
    delta: float
    gamma: float
    macro: float
    parts: float
    o_information: float
    """Of the parts after the block."""


@dataclasses.dataclass(frozen=True)
class CausalProfile(Result):
    """Causal emergence and O-information per block. Made by :func:`causal_profile`."""

    KIND = "causal-emergence"

    rows: tuple[CausalRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def title(self) -> str:
        return "Causal emergence per block"

    def headline(self) -> str:
        emergent = [str(row.layer) for row in self.rows if row.psi > 0]
        blocks = f"blocks {', '.join(emergent)}" if emergent else "none of the blocks"
        return f"Psi is above 0, which is sufficient for causal emergence, in {blocks}."

    def how(self) -> str:
        return (
            "The step is one block, the parts are directions of the residual stream before and "
            "after it, rows are prompts. Psi = I(V; V') - sum of I(part; V') for a macroscopic "
            "feature V; Delta and Gamma are the largest information of V and of the parts about "
            "one part after the block. Only linear dependence is seen, and redundant parts lower "
            "Psi: below 0 it decides nothing."
        )

    def tables(self) -> list[Table]:
        heads, about = {"layer": "block", "o_information": "o-information"}, "Bits per block"
        return [plain_table("blocks", about, self.rows, heads=heads, number=".3f", terminal=True)]

    def charts(self) -> list[Chart]:
        x, names = [row.layer for row in self.rows], ("psi", "delta", "gamma", "o_information")
        y = {name: [getattr(row, name) for row in self.rows] for name in names}
        # Along the scale of depth, so that the four differ without a colour table of their own.
        marks = [
            Line(name=name.replace("_", "-"), x=x, y=y[name], colour=i / 3)
            for i, name in enumerate(names)
        ]
        panel = Panel(x="block", y="bits", marks=[*marks, Rule(at=0)])
        return [Chart(name="causal", title=self.title(), panels=[panel])] if x else []


def causal_profile(
    activations: Captured,
    *,
    shots: int,
    parts: int | Float[Tensor, "d_model part"] = DEFAULT_PARTS,
    macro: int | Float[Tensor, "part feature"] = 1,
    normalisation: str = "layernorm",
) -> CausalProfile:
    """Psi, Delta, Gamma and O-information of every block at one shot count.

    Args:
        activations: From :func:`ed_interp.capture`.
        shots: Number of demonstrations.
        parts: How many principal components of all sites to take as parts, or directions of the
            stream as columns.
        macro: V: how many leading principal directions of the parts before the block, or a
            projection of the parts, the same for every block.
        normalisation: How states are normalised first: ``layernorm``, ``rms`` or ``none``.

    Raises:
        InvalidInputError: parts that do not fit the width or the number of prompts, or states
            that are all the same before some block.
    """
    states = normalise(activations.at(shots), normalisation).double()
    prompts, _, width = states.shape
    if isinstance(parts, int):
        most = min(width, prompts - 2)
        if not 3 <= parts <= most:
            raise InvalidInputError(
                f"parts must be between 3 and {most} for {prompts} prompts of width {width}, got "
                f"{parts}"
            )
        pooled = (states - states.mean(0)).reshape(-1, width)
        directions = torch.linalg.eigh(pooled.T @ pooled)[1][:, -parts:].flip(1)
    else:
        directions = parts.to(states)
        if directions.ndim != 2 or directions.shape[0] != width:
            raise InvalidInputError(
                f"parts must have the shape ({width}, columns), got {tuple(directions.shape)}"
            )
    sites = (states @ directions).movedim(1, 0)
    rows = []
    for layer, (before, after) in enumerate(itertools.pairwise(sites)):
        one = causal_emergence(before, after, macro=macro)
        measures = one.psi, one.delta, one.gamma, one.macro, one.parts
        rows.append(CausalRow(layer, *measures, o_information(after).bits))
    settings = {
        "shots": shots,
        "parts": int(directions.shape[1]),
        "macro": macro if isinstance(macro, int) else int(macro.shape[1]),
        "prompts": int(prompts),
        "normalisation": normalisation,
    }
    return CausalProfile(tuple(rows), settings)
