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
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.errors import unknown
from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    Terms,
    check_chain,
    check_pair,
)
from ed_interp.probes.emergence.estimators.rows import population_entropy, population_weights
from ed_interp.probes.emergence.estimators.tables import Whitened, whitened

_CEILING = 1 - 1e-10
"""Largest squared correlation: what is nearer to 1 is 1 but for rounding."""

_ROWS_PER_COLUMN = 1.25
_CHANCE = 0.9793
"""95% point of the Tracy-Widom law of order 1 (Johnstone 2008, table 1)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian:
    """The ``gaussian`` estimator; see the module for what it computes and costs."""

    correction: str = "auto"
    """``auto``, ``analytic``, ``spectral`` or ``none``."""
    margins: str = "raw"
    """``raw`` columns, or ``rank``: made normal by their ranks."""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("correction", self.correction, ("auto", "analytic", "spectral", "none")),
            ("margins", self.margins, ("raw", "rank")),
        ):
            if value not in known:
                raise unknown(what, value, known)

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "gaussian"

    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``. ``seed`` has no effect.

        Raises:
            InvalidInputError: tables that do not fit, NaN or infinite values, bad weights.
        """
        check_pair(x, y)
        return self._run([[x, y]], (), weights)

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites; each site is whitened once.

        Raises:
            InvalidInputError: as :meth:`pair`, or fewer than two sites or rows.
        """
        check_chain(states)
        flat = states.reshape(-1, *states.shape[-3:])
        for chain in flat:
            for left, right in itertools.pairwise(chain):
                check_pair(left, right)
        return self._run([list(one) for one in flat], tuple(states.shape[:-3]), weights)

    @torch.no_grad()
    def _run(
        self, chains: list[list[Tensor]], batch: tuple[int, ...], weights: Tensor | None
    ) -> Terms:
        rows, blocks = len(chains[0][0]), len(chains[0]) - 1
        normal = population_weights(weights, batch, rows)
        flat_weights = normal.expand(*batch, rows).reshape(-1, rows)
        terms = torch.zeros(len(chains), blocks, rows, dtype=torch.float64)
        flags: dict[str, Tensor] = {}
        for index, (sites, shares) in enumerate(zip(chains, flat_weights, strict=True)):
            counted = shares > 0
            share = shares[counted].to(sites[0].device)
            white = [whitened(x[counted.to(x.device)], share, self.margins) for x in sites]
            for block in range(blocks):
                found = _fit(white[block], white[block + 1], share, self.correction)
                terms[index, block, counted] = found.terms.cpu()
                for flag in found.flags:
                    mask = flags.setdefault(flag, torch.zeros(len(chains), blocks).bool())
                    mask[index, block] = True
        limits = [
            population_entropy(chain, share)
            for chain, share in zip(chains, flat_weights, strict=True)
        ]
        return Terms(
            terms=terms.reshape(*batch, blocks, rows),
            weights=normal,
            limit=torch.tensor(limits, dtype=torch.float64).reshape(batch),
            settings={"estimator": self.name, **dataclasses.asdict(self)},
            flags={name: mask.reshape(*batch, blocks) for name, mask in flags.items()},
        )


@dataclasses.dataclass(frozen=True)
class _Fit:
    terms: Tensor
    flags: tuple[str, ...]


def _fit(x: Whitened, y: Whitened, weights: Tensor, correction: str) -> _Fit:
    """Pointwise terms in bits whose weighted mean is the corrected estimate."""
    dof = float(1 / weights.square().sum()) - 1
    flags = []
    enough = dof >= _ROWS_PER_COLUMN * (x.width + y.width)
    how = ("analytic" if enough else "spectral") if correction == "auto" else correction
    most = max(1, math.floor(dof / 4))
    if how == "spectral" or (how == "analytic" and dof <= x.width + y.width + 1):
        if max(x.width, y.width) > most:
            flags.append("projected")
        x, y = (Whitened(side.scores[:, :most]) for side in (x, y))
    if how == "spectral":
        flags.append("shrunk")
    if min(x.width, y.width) == 0:
        return _Fit(torch.zeros_like(weights), ())
    u, v, squared = _canonical(x, y, weights)
    if bool((squared >= _CEILING).any()):
        flags.append("ill-conditioned")
    if how == "spectral":
        kept = shrunk_correlations(squared.tolist(), x.width, y.width, dof)
        true = torch.tensor(kept, dtype=torch.float64, device=squared.device)
    else:
        true = squared
    nats = float(-0.5 * torch.log1p(-true).sum())
    if how == "analytic":
        nats -= chance_nats(x.width, y.width, dof)
    rho = true.sqrt()
    quadratic = (true * (u.square() + v.square()) - 2 * rho * u * v) / (1 - true)
    terms = -0.5 * quadratic.sum(1)
    terms += nats - weights @ terms
    return _Fit(terms / math.log(2), tuple(flags))


def _canonical(x: Whitened, y: Whitened, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical variates of both sides, and their squared correlations."""
    left, values, right = torch.linalg.svd(
        (x.scores * weights[:, None]).T @ y.scores, full_matrices=False
    )
    return x.scores @ left, y.scores @ right.T, values.square().clamp(max=_CEILING)


@torch.no_grad()
def log_mean_ratio(
    x: Float[Tensor, "row d_x"],
    y: Float[Tensor, "row d_y"],
    weights: Float[Tensor, "row"],
    chosen: Shaped[Tensor, "pick"],
    margins: str = "raw",
) -> float:
    """``log E[p(x, y) / (p(x) p(y))]`` in nats over rows paired at random, p the fitted Gaussian.

    0 but for chance where the margins are Gaussian: the ratio integrates to 1 over their product.

    Args:
        x: rows of one side.
        y: the same rows of the other side.
        weights: summing to 1.
        chosen: indices of rows; each of them is paired with each other.
        margins: of the Gaussian.
    """
    counted = weights > 0
    share = weights[counted].to(x.device)
    place = (counted.cumsum(0) - 1)[chosen].to(x.device)
    dof = float(1 / share.square().sum()) - 1
    most = max(1, math.floor(dof / 4))
    sides = [whitened(z[counted.to(z.device)], share, margins) for z in (x, y)]
    if dof < _ROWS_PER_COLUMN * (sides[0].width + sides[1].width):
        sides = [Whitened(side.scores[:, :most]) for side in sides]
    if min(side.width for side in sides) == 0:
        return 0.0
    u, v, squared = _canonical(sides[0], sides[1], share)
    u, v, rho = u[place], v[place], squared.sqrt()
    scale = squared / (2 * (1 - squared))
    ratio = (u * (rho / (1 - squared))) @ v.T
    ratio -= (u.square() @ scale)[:, None] + v.square() @ scale
    ratio -= 0.5 * torch.log1p(-squared).sum()
    same = place[:, None] == place
    ratio[same] = -torch.inf
    pairs = max(1, int((~same).sum()))
    return float(torch.logsumexp(ratio.flatten(), 0)) - math.log(pairs)


def chance_nats(d_x: int, d_y: int, dof: float) -> float:
    """Expected excess of the plain Gaussian value over the true one, in nats."""
    parts = log_determinant_bias(d_x, dof) + log_determinant_bias(d_y, dof)
    return 0.5 * (parts - log_determinant_bias(d_x + d_y, dof))


def log_determinant_bias(width: int, dof: float) -> float:
    """E log|S| - log|Sigma| in nats, S the covariance of Gaussian rows with ``dof`` of freedom.

    The determinant of a Wishart matrix is a product of chi-squares of ``dof``, ``dof - 1``, ...
    degrees of freedom, the expected logarithm of each a digamma function.
    """
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
    found = []
    for value in squared:
        if value <= edge or c_x + c_y >= 1:
            found.append(0.0)
            continue
        a = (1 - c_x) * (1 - c_y)
        b = c_x * (1 - c_y) + c_y * (1 - c_x) - value
        root = b * b - 4 * a * c_x * c_y
        found.append(min(_CEILING, max(0.0, (-b + math.sqrt(max(0.0, root))) / (2 * a))))
    return found
