"""Information of the best-fitting Gaussian, corrected for chance: the estimator ``gaussian``.

    I = -1/2 sum_i log2(1 - rho_i^2),   rho_i the canonical correlations of x and y.

The plain value counts chance correlations: with d columns a side and n rows it is about d^2 / (2 n)
nats too high, which at the widths of a language model is most of it. Two corrections:

- ``analytic``: subtracts the expectation of that excess, exact for Gaussian rows at any number of
  columns below that of rows (E log |S| of a Wishart matrix: Misra, Singh and Demchuk, "Estimation
  of the entropy of a multivariate normal distribution", 2005). Unbiased, also below 0.
- ``spectral``: shrinks each canonical correlation to what it would be without chance, by the limit
  of large tables (Bao, Hu, Pan and Zhou, "Canonical correlation coefficients of high-dimensional
  Gaussian vectors: finite rank case", Annals of Statistics 2019), and to 0 below the largest that
  chance gives (95% point by Johnstone, "Multivariate analysis and Jacobi ensembles", Annals of
  Statistics 2008). Steady with few rows, but weak correlations are lost.

``auto`` is analytic from 1.25 rows a column (of x and y together) on, where chance leaves a
standard error of 0.8 bits (0.4 at 2 rows a column, 0.2 at 3), and spectral below, where each side
is also reduced to its leading principal components, a quarter as many as rows.
``margins="rank"`` makes every column normal by its ranks first (a Gaussian copula), which undoes
any monotone map of single columns.

What is not Gaussian is not seen: for other laws of the same correlations the value is neither an
upper nor a lower bound in general.

Cost: ``n d^2`` for each site and each block: 0.3 s a block at n = 2,000 and d = 768 on one core.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.rows import counted_rows
from ed_interp.probes.emergence.estimators.tables import (
    DensityEstimator,
    Margins,
    Shares,
    Table,
    whitened,
)

# Largest squared correlation: what is nearer to 1 is 1 but for rounding.
_CEILING = 1 - 1e-10
_ROWS_PER_COLUMN = 1.25
# 95% point of the Tracy-Widom law of order 1 (Johnstone 2008, table 1).
_CHANCE = 0.9793


@register("gaussian")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian(DensityEstimator):
    """The ``gaussian`` estimator; see the module for what it computes and costs."""

    flags: ClassVar[Mapping[str, str]] = {
        "shrunk": "too few rows for the columns: weak correlations were taken for chance",
        "projected": "too few rows for the columns: only the leading principal components were "
        "kept, so the value is a lower bound",
        "ill-conditioned": "one side determines directions of the other exactly: the Gaussian "
        "information is infinite and was cut at the precision of the numbers",
    }

    correction: Literal["auto", "analytic", "spectral", "none"] = option(
        "auto", "Correction for chance; auto is analytic from 1.25 rows a column on."
    )
    margins: Margins = option(
        "raw", "Columns as they are (raw), or made normal by their ranks (rank)."
    )

    def each_block(
        self, sites: list[Tensor], share: Tensor, *, seed: int, max_bytes: int
    ) -> Iterator[tuple[Tensor, list[str]]]:
        share = share.to(sites[0].device)
        # Each site once: it serves two blocks.
        white = [whitened(site, share, self.margins) for site in sites]
        for x, y in itertools.pairwise(white):
            yield _fit(x, y, share, self.correction)


def _fit(x: Tensor, y: Tensor, weights: Tensor, correction: str) -> tuple[Tensor, list[str]]:
    """Pointwise terms in bits, whose weighted mean is the corrected estimate, and flags."""
    dof, flags = degrees_of_freedom(weights), []
    enough = dof >= _ROWS_PER_COLUMN * (x.shape[1] + y.shape[1])
    how = ("analytic" if enough else "spectral") if correction == "auto" else correction
    # The analytic correction is finite only with more degrees of freedom than columns.
    if how == "spectral" or (how == "analytic" and dof <= x.shape[1] + y.shape[1] + 1):
        most = most_components(dof)
        if max(x.shape[1], y.shape[1]) > most:
            flags.append("projected")
        x, y = x[:, :most], y[:, :most]
    if how == "spectral":
        flags.append("shrunk")
    if min(x.shape[1], y.shape[1]) == 0:
        return torch.zeros_like(weights), []
    u, v, squared = _canonical(x, y, weights)
    if bool((squared >= _CEILING).any()):
        flags.append("ill-conditioned")
    true = squared
    if how == "spectral":
        kept = shrunk_correlations(squared.tolist(), x.shape[1], y.shape[1], dof)
        true = squared.new_tensor(kept)
    nats = float(-0.5 * torch.log1p(-true).sum())
    if how == "analytic":
        nats -= chance_nats(x.shape[1], y.shape[1], dof)
    rho = true.sqrt()
    # The log ratio of the Gaussian densities in canonical variates, but for its constant, which
    # is set so that the mean of the terms is the corrected value.
    quadratic = (true * (u.square() + v.square()) - 2 * rho * u * v) / (1 - true)
    terms = -0.5 * quadratic.sum(1)
    terms += nats - weights @ terms
    return terms / math.log(2), flags


def degrees_of_freedom(weights: Shares) -> float:
    """Effective number of rows less 1 for their mean; ``weights`` sum to 1."""
    return float(1 / weights.square().sum()) - 1


def most_components(dof: float) -> int:
    """Principal components per side that few rows allow: a quarter as many."""
    return max(1, math.floor(dof / 4))


def _canonical(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical variates of both sides, and their squared correlations."""
    left, values, right = torch.linalg.svd((x * weights[:, None]).T @ y, full_matrices=False)
    return x @ left, y @ right.T, values.square().clamp(max=_CEILING)


@torch.no_grad()
def log_mean_ratio(
    x: Table, y: Table, weights: Shares, chosen: Shaped[Tensor, "pick"], margins: Margins = "raw"
) -> float:
    """``log E[p(x, y) / (p(x) p(y))]`` in nats over rows paired at random, p the fitted Gaussian.

    0 but for chance where the margins are Gaussian: the ratio integrates to 1 over their product.
    ``chosen`` are indices of rows; each of them is paired with each other.
    """
    _, share, kept = counted_rows((x, y), weights)
    share = share.to(x.device)
    # Indices among all rows become places among the rows that count.
    place = ((weights > 0).cumsum(0) - 1)[chosen].to(x.device)
    dof = degrees_of_freedom(share)
    sides = [whitened(z, share, margins) for z in kept]
    if dof < _ROWS_PER_COLUMN * (sides[0].shape[1] + sides[1].shape[1]):
        sides = [side[:, : most_components(dof)] for side in sides]
    if min(side.shape[1] for side in sides) == 0:
        return 0.0
    u, v, squared = _canonical(sides[0], sides[1], share)
    u, v, rho = u[place], v[place], squared.sqrt()
    scale = squared / (2 * (1 - squared))
    ratio = (u * (rho / (1 - squared))) @ v.T
    ratio -= (u.square() @ scale)[:, None] + v.square() @ scale
    ratio -= 0.5 * torch.log1p(-squared).sum()
    same = place[:, None] == place
    # A row drawn twice is no random pair: its own term would dominate the mean.
    ratio[same] = -torch.inf
    return float(torch.logsumexp(ratio.flatten(), 0)) - math.log(max(1, int((~same).sum())))


def chance_nats(d_x: int, d_y: int, dof: float) -> float:
    """Expected excess of the plain Gaussian value over the true one, in nats."""
    parts = log_determinant_bias(d_x, dof) + log_determinant_bias(d_y, dof)
    return 0.5 * (parts - log_determinant_bias(d_x + d_y, dof))


def log_determinant_bias(width: int, dof: float) -> float:
    """E log|S| - log|Sigma| in nats, S the covariance of Gaussian rows with ``dof`` of freedom."""
    # The determinant of a Wishart matrix is a product of chi-squares of dof, dof - 1, ... degrees
    # of freedom, the expected logarithm of each a digamma function.
    places = torch.arange(width, dtype=torch.float64)
    return float((torch.digamma((dof - places) / 2) - math.log(dof / 2)).sum())


def largest_by_chance(d_x: int, d_y: int, dof: float) -> float:
    """Squared canonical correlation that chance exceeds in 5% of independent tables.

    Johnstone (2008), theorem 1: the logit of the largest root is Tracy-Widom after centring and
    scaling, with the smaller width as the number of variables and ``dof - d_x`` of error.
    """
    small, large = sorted((d_x, d_y))
    total = max(dof - 1, small + large + 1.0)
    gamma = 2 * math.asin(math.sqrt((small - 0.5) / total))
    phi = 2 * math.asin(math.sqrt((large - 0.5) / total))
    if phi + gamma >= math.pi:
        return 1.0
    centre = 2 * math.log(math.tan((phi + gamma) / 2))
    cubed = 16 / total**2 / (math.sin(phi + gamma) ** 2 * math.sin(phi) * math.sin(gamma))
    return 1 / (1 + math.exp(-(centre + _CHANCE * cubed ** (1 / 3))))


def shrunk_correlations(squared: Sequence[float], d_x: int, d_y: int, dof: float) -> list[float]:
    """Squared canonical correlations of the population from those of the sample.

    Inverts the limit of Bao and others (2019), theorem 1.8: a true squared correlation r appears
    as ``(1 - c_x + c_x / r) (1 - c_y + c_y / r) r`` with c the columns per row.
    """
    c_x, c_y = d_x / dof, d_y / dof
    edge = largest_by_chance(d_x, d_y, dof)

    def shrunk(value: float) -> float:
        if value <= edge or c_x + c_y >= 1:
            return 0.0
        # Multiplied by r, the limit is quadratic: a r^2 + b r + c_x c_y = 0, the larger root.
        a = (1 - c_x) * (1 - c_y)
        b = c_x * (1 - c_y) + c_y * (1 - c_x) - value
        root = b * b - 4 * a * c_x * c_y
        return min(_CEILING, max(0.0, (-b + math.sqrt(max(0.0, root))) / (2 * a)))

    return [shrunk(value) for value in squared]
