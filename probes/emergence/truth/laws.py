"""Joint laws of (x, y) with a known density ratio: what populations of known information are of.

A law draws rows and knows the pointwise information ``log2 p(x, y) / (p(x) p(y))`` of every row,
whose mean is the mutual information. Where that mean has a closed form it is given; elsewhere it
is integrated numerically, with its standard error. Everything is NumPy in float64.

Cost: drawing ``n`` rows of width ``d`` takes ``n d`` normal numbers; a numerical value takes
``INTEGRATION_ROWS`` rows, under a second for the widest mixture of the suite.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, logsumexp

Array = NDArray[np.float64]

INTEGRATION_ROWS = 100_000
"""Rows over which a value without a closed form is averaged: errors of about 0.004 bits."""

_CHUNK = 20_000
_LOG2 = math.log(2)


class Law(abc.ABC):
    """A joint distribution of ``x`` and ``y``."""

    @property
    @abc.abstractmethod
    def widths(self) -> tuple[int, int]:
        """Columns of x and of y."""

    @abc.abstractmethod
    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """``rows`` independent rows of x and y."""

    @abc.abstractmethod
    def pointwise(self, x: Array, y: Array) -> Array:
        """``log2 p(x, y) / (p(x) p(y))`` of each row, in bits."""

    @abc.abstractmethod
    def exact_bits(self) -> float | None:
        """Mutual information, if it has a closed form."""


def information(law: Law, *, rows: int = INTEGRATION_ROWS, seed: int = 0) -> tuple[float, float]:
    """Mutual information of ``law`` in bits and its standard error, 0 for a closed form."""
    exact = law.exact_bits()
    return (exact, 0.0) if exact is not None else integrate(law, rows=rows, seed=seed)


def integrate(law: Law, *, rows: int = INTEGRATION_ROWS, seed: int = 0) -> tuple[float, float]:
    """Mean pointwise information over ``rows`` fresh rows, and its standard error."""
    rng = np.random.default_rng([seed, 71])
    sizes = (min(_CHUNK, rows - start) for start in range(0, rows, _CHUNK))
    bits = np.concatenate([law.pointwise(*law.draw(size, rng)) for size in sizes])
    return float(bits.mean()), float(bits.std(ddof=1) / math.sqrt(len(bits)))


@dataclasses.dataclass(frozen=True)
class Mixture(Law):
    """A mixture of Gaussians over the joint space; one component is a Gaussian."""

    shares: tuple[float, ...]
    means: Array
    """``component d_x + d_y``."""
    covariances: Array
    """``component d_x + d_y  d_x + d_y``."""
    d_x: int

    @property
    def widths(self) -> tuple[int, int]:
        return self.d_x, self.means.shape[1] - self.d_x

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        which = rng.choice(len(self.shares), size=rows, p=self.shares)
        joint = rng.standard_normal((rows, self.means.shape[1]))
        for component, mean in enumerate(self.means):
            mine, root = which == component, np.linalg.cholesky(self.covariances[component])
            joint[mine] = joint[mine] @ root.T + mean
        return joint[:, : self.d_x], joint[:, self.d_x :]

    def pointwise(self, x: Array, y: Array) -> Array:
        both = self._log_density(np.concatenate([x, y], 1), slice(None))
        of_x = self._log_density(x, slice(0, self.d_x))
        return np.asarray((both - of_x - self._log_density(y, slice(self.d_x, None))) / _LOG2)

    def exact_bits(self) -> float | None:
        """Closed form of a single Gaussian: from the determinants of the three covariances."""
        if len(self.shares) > 1:
            return None
        joint, d = self.covariances[0], self.d_x
        logs = [np.linalg.slogdet(part)[1] for part in (joint[:d, :d], joint[d:, d:], joint)]
        return float((logs[0] + logs[1] - logs[2]) / (2 * _LOG2)) + 0.0

    def _log_density(self, z: Array, part: slice) -> Array:
        # Log densities of the components by their Cholesky factors, which underflow nowhere.
        terms = np.empty((len(self.shares), len(z)))
        for index, share in enumerate(self.shares):
            root = np.linalg.cholesky(self.covariances[index][part, part])
            white = np.linalg.solve(root, (z - self.means[index][part]).T)
            spread = np.log(np.diag(root)).sum() + 0.5 * len(root) * math.log(2 * math.pi)
            terms[index] = math.log(share) - 0.5 * (white**2).sum(0) - spread
        return np.asarray(logsumexp(terms, axis=0))


@dataclasses.dataclass(frozen=True)
class Canonical(Law):
    """Pairs of coordinates with given correlations, independent otherwise; Gaussian or Student.

    A Student vector is a Gaussian one divided by ``sqrt(chi^2 / dof)``, one division for x and y
    together: even without correlations the common scale carries information.
    """

    correlations: tuple[float, ...]
    """Correlation of coordinate i of x with that of y; further coordinates have none."""
    d_x: int
    d_y: int
    dof: float = math.inf
    """Degrees of freedom of the Student law; infinite for the Gaussian."""

    @property
    def widths(self) -> tuple[int, int]:
        return self.d_x, self.d_y

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.standard_normal((rows, self.d_x))
        y = rng.standard_normal((rows, self.d_y))
        rho = np.array(self.correlations)
        k = len(rho)
        y[:, :k] = rho * x[:, :k] + np.sqrt(1 - rho**2) * y[:, :k]
        if math.isfinite(self.dof):
            scale = np.sqrt(self.dof / rng.chisquare(self.dof, size=(rows, 1)))
            x, y = x * scale, y * scale
        return x, y

    def pointwise(self, x: Array, y: Array) -> Array:
        rho = np.array(self.correlations)
        k = len(rho)
        u, v = x[:, :k], y[:, :k]
        squared = (x**2).sum(1), (y**2).sum(1)
        # Squared Mahalanobis distance: only the correlated pairs differ from the plain lengths.
        joint = squared[0] + squared[1] - (u**2).sum(1) - (v**2).sum(1)
        joint += ((u**2 - 2 * rho * u * v + v**2) / (1 - rho**2)).sum(1)
        nats = np.full(len(x), -0.5 * np.log1p(-(rho**2)).sum())
        if math.isinf(self.dof):
            return np.asarray((nats + 0.5 * (squared[0] + squared[1] - joint)) / _LOG2)
        nu = self.dof
        widths, distances = (self.d_x + self.d_y, *self.widths), (joint, *squared)
        for sign, width, distance in zip((1, -1, -1), widths, distances, strict=True):
            normal = gammaln((nu + width) / 2) - gammaln(nu / 2)
            nats = nats + sign * (normal - (nu + width) / 2 * np.log1p(distance / nu))
        return np.asarray(nats / _LOG2)

    def exact_bits(self) -> float:
        """Closed form: that of the Gaussian, plus that of the common scale."""
        gaussian = -0.5 * float(np.log1p(-(np.array(self.correlations) ** 2)).sum()) / _LOG2
        return gaussian + 0.0 + student_extra_bits(self.dof, self.d_x, self.d_y)


def student_extra_bits(dof: float, d_x: int, d_y: int) -> float:
    """Information of the common scale of a Student law, in bits: all of it at no correlation."""
    if math.isinf(dof):
        return 0.0

    # Entropy of the multivariate Student law from Arellano-Valle, Contreras-Reyes and Genton,
    # "Shannon entropy and mutual information for multivariate skew-elliptical distributions"
    # (2013), without what cancels between the three entropies.
    def part(width: int) -> float:
        half, base = (dof + width) / 2, dof / 2
        return float(gammaln(base) - gammaln(half) + half * (digamma(half) - digamma(base)))

    return (part(d_x) + part(d_y) - part(d_x + d_y)) / _LOG2


@dataclasses.dataclass(frozen=True)
class AdditiveUniform(Law):
    """``y = x + u`` with x uniform on (0, 1) and u uniform on (-width, width)."""

    width: float

    @property
    def widths(self) -> tuple[int, int]:
        return 1, 1

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.uniform(size=(rows, 1))
        return x, x + rng.uniform(-self.width, self.width, size=(rows, 1))

    def pointwise(self, x: Array, y: Array) -> Array:
        """``-log2`` of the length of the x that are possible given y."""
        # Given y, x is uniform on the overlap of (0, 1) and y +- width.
        possible = np.minimum(1, y + self.width) - np.maximum(0, y - self.width)
        return np.asarray(-np.log2(possible[:, 0]))

    def exact_bits(self) -> float:
        """Integral of that length's logarithm over the trapezoid density of y."""
        w = self.width
        return (1 / (4 * w) if w > 0.5 else w - math.log(2 * w)) / _LOG2


@dataclasses.dataclass(frozen=True)
class Clusters(Law):
    """Discrete pairs (a, b), each shown as a point of a cloud around its own centre.

    The clouds have a radius that is small against the distance of the centres unless noise is
    added: then the value is integrated, else it is that of the table.
    """

    table: Array
    """Probabilities ``a b``."""
    centres_x: Array
    """``a d_x``."""
    centres_y: Array
    """``b d_y``."""
    radius_x: float
    """Standard deviation of the cloud of x per coordinate; 0 makes repeated, equal rows."""
    radius_y: float

    @property
    def widths(self) -> tuple[int, int]:
        return self.centres_x.shape[1], self.centres_y.shape[1]

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        cells = rng.choice(self.table.size, size=rows, p=self.table.ravel())
        a, b = np.divmod(cells, self.table.shape[1])
        x, y = self.centres_x[a], self.centres_y[b]
        x = x + self.radius_x * rng.standard_normal(x.shape)
        return x, y + self.radius_y * rng.standard_normal(y.shape)

    def pointwise(self, x: Array, y: Array) -> Array:
        # Given their centres the two clouds are independent.
        log_x = _cloud(x, self.centres_x, self.radius_x)
        log_y = _cloud(y, self.centres_y, self.radius_y)
        with np.errstate(divide="ignore"):  # a centre that never occurs has log 0
            log_a, log_b = np.log(self.table.sum(1)), np.log(self.table.sum(0))
        # Scaled by the nearest centre, the exponentials neither overflow nor all vanish.
        top_x, top_y = log_x.max(1, keepdims=True), log_y.max(1, keepdims=True)
        joint = ((np.exp(log_x - top_x) @ self.table) * np.exp(log_y - top_y)).sum(1)
        nats = np.log(joint) + top_x[:, 0] + top_y[:, 0] - logsumexp(log_x + log_a, axis=1)
        return np.asarray((nats - logsumexp(log_y + log_b, axis=1)) / _LOG2)

    def exact_bits(self) -> float | None:
        """Information of the table where clouds do not touch (12 radii apart), else None."""
        clouds = ((self.centres_x, self.radius_x), (self.centres_y, self.radius_y))
        apart = all(least_distance(c) >= 12 * radius * (1 - 1e-9) for c, radius in clouds)
        return table_bits(self.table) if apart else None


def table_bits(table: Array) -> float:
    """Mutual information of a table of probabilities, in bits."""
    product = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    cells = table > 0
    return max(0.0, float((table[cells] * np.log2(table[cells] / product[cells])).sum()))


def gaussian(covariance: NDArray[Any], d_x: int) -> Mixture:
    """The centred Gaussian with that covariance."""
    return mixture([[0.0] * len(covariance)], [covariance], d_x)


def mixture(
    means: Sequence[Sequence[float | int]],
    covariances: Sequence[NDArray[Any]],
    d_x: int,
    shares: Sequence[float] | None = None,
) -> Mixture:
    """A mixture of Gaussians; equal shares unless given."""
    given = tuple(shares) if shares is not None else (1 / len(means),) * len(means)
    stacked = np.stack([np.asarray(one, dtype=np.float64) for one in covariances])
    return Mixture(given, np.array(means, dtype=np.float64), stacked, d_x)


def _cloud(x: Array, centres: Array, radius: float) -> Array:
    # Without a radius a row is its centre or impossible.
    if radius == 0:
        return np.where((x[:, None] == centres[None]).all(2), 0.0, -np.inf)
    squared = (x**2).sum(1)[:, None] - 2 * x @ centres.T + (centres**2).sum(1)
    return np.asarray(-0.5 * squared / radius**2)


def least_distance(centres: Array) -> float:
    """Distance of the two nearest points."""
    if len(centres) < 2:
        return math.inf
    squared = (centres**2).sum(1)
    distances = squared[:, None] - 2 * centres @ centres.T + squared
    np.fill_diagonal(distances, np.inf)
    return math.sqrt(max(0.0, float(distances.min())))
