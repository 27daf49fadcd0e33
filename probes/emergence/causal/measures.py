r"""Causal emergence and O-information of Gaussian systems.

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

Cost: ``n (2 d)^2`` operations for the covariance, then ``d^3``.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import check_pair
from ed_interp.probes.emergence.estimators.gaussian import (
    chance_nats,
    degrees_of_freedom,
    log_determinant_bias,
)
from ed_interp.probes.emergence.estimators.rows import check_finite, population_weights
from ed_interp.probes.emergence.estimators.tables import scaled

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
    features, dof = projection.shape[1], degrees_of_freedom(share)
    # V before and after have twice as many columns, whose covariance must have full rank.
    if dof < 2 * features + 2:
        raise InvalidInputError(
            f"{features} macroscopic columns must have more than {2 * features + 2} rows, got "
            f"{dof + 1:.0f}"
        )
    v, w = _white(first @ projection, share), _white(second @ projection, share)
    x, y = scaled(first, share), scaled(second, share)
    macro_bits = _joint_bits(v, w, share, dof)
    to_macro = _each_bits(x, w, share, dof)
    from_macro = _each_bits(y, v, share, dof)
    pairs = _pair_bits(x, y, share, dof)
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
    table, dof = scaled(parts, share), degrees_of_freedom(share)
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
    whole = float(values.log().sum()) - log_determinant_bias(width, dof)
    rest = log_determinant_bias(width, dof) - log_determinant_bias(width - 1, dof)
    alone = float(torch.diagonal(covariance).log().sum()) - width * log_determinant_bias(1, dof)
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
    return table @ (vectors[:, kept] / values[kept].sqrt())


def _nats(squared: Tensor) -> Tensor:
    """Information of pairs of Gaussian variables in nats, from their squared correlations."""
    return -0.5 * torch.log1p(-squared.clamp(max=_CEILING))


def _joint_bits(v: Tensor, w: Tensor, share: Tensor, dof: float) -> float:
    if min(v.shape[1], w.shape[1]) == 0:
        return 0.0
    squared = torch.linalg.svdvals((v * share[:, None]).T @ w).square()
    return (float(_nats(squared).sum()) - chance_nats(v.shape[1], w.shape[1], dof)) / _LOG2


def _each_bits(x: Tensor, w: Tensor, share: Tensor, dof: float) -> Tensor:
    """Information of every column of ``x`` with all of ``w``, from its multiple correlation."""
    if w.shape[1] == 0:
        return torch.zeros(x.shape[1]).to(share)
    squared = ((x * share[:, None]).T @ w).square().sum(1)
    return (_nats(squared) - chance_nats(1, w.shape[1], dof)) / _LOG2


def _pair_bits(x: Tensor, y: Tensor, share: Tensor, dof: float) -> Tensor:
    """``column of x, column of y``: information of the two."""
    return (_nats(((x * share[:, None]).T @ y).square()) - chance_nats(1, 1, dof)) / _LOG2
