"""Populations of known information at the user's own width, for calibration.

Every population has ``d_x`` and ``d_y`` columns of unit scale over all, like layer-normed states,
and a given number of bits. Only a few directions are informative; the directions' variances fall
off like ``1 / sqrt(i)``, the informative ones are spread over the larger, and then everything is
rotated, so that no single column is special. Families:

- ``gaussian``: up to 8 correlated pairs of directions;
- ``student``: long tails; half of the information lies in the scale that x and y share;
- ``nonlinear``: the Gaussian through monotone maps of every column, others for x than for y;
- ``mixture``: the Gaussian hidden behind a fifth of rows in which x and y are independent;
- ``clusters``: tight clouds; y's cloud mostly follows from x's;
- ``deterministic``: few distinct rows that repeat, y a one-to-one function of x.

Cost: a rotation of ``d^3`` operations once per width, half a second for the values of a mixture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

import ed_interp.probes.emergence.truth.laws as laws
import ed_interp.probes.emergence.truth.maps as maps
from ed_interp.errors import InvalidInputError, unknown
from ed_interp.probes.emergence.truth.known import Bits, KnownInformation

DEFAULT_BITS = (0.0, 1.0, 2.0, 4.0, 8.0)

_PAIRS = 8
_MIXED_PAIRS = 2
_INLIERS = 0.2
_NOISY_ROWS = 20_000
_MOST_BITS = 12.0
_WIDEST_CLOUD = 0.2


def calibration_tasks(
    d_x: int,
    d_y: int | None = None,
    *,
    bits: Sequence[float] = DEFAULT_BITS,
    families: Sequence[str] | None = None,
) -> tuple[KnownInformation, ...]:
    """Populations of that width at those true values, family by family.

    Information 0 is one population: independent Gaussians, in family ``gaussian``.

    Args:
        d_x: Columns of x.
        d_y: Columns of y; as many as x unless given.
        bits: True values. Clusters have whole numbers of clouds, so that ``deterministic`` has
            ``log2`` of the nearest number; the exact value is the population's own ``bits``.
        families: Some of :data:`FAMILIES`; all by default.

    Raises:
        InvalidInputError: widths below 1, values below 0 or above 12 bits.
        UnknownNameError: a family that does not exist.
    """
    width_y = d_x if d_y is None else d_y
    if d_x < 1 or width_y < 1:
        raise InvalidInputError(f"d_x and d_y must be 1 or greater, got {d_x} and {width_y}")
    if not bits or any(not (math.isfinite(b) and 0 <= b <= _MOST_BITS) for b in bits):
        raise InvalidInputError(
            f"bits must be true values between 0 and {_MOST_BITS:.0f}, got {list(bits)}"
        )
    chosen = FAMILIES if families is None else tuple(families)
    for family in chosen:
        if family not in FAMILIES:
            raise unknown("family", family, FAMILIES)
    return tuple(
        _MAKERS[family](d_x, width_y, value)
        for family in chosen
        for value in sorted(set(map(float, bits)))
        if value > 0 or family == "gaussian"
    )


class _Frame:
    """The few informative directions among all: scales and rotations of both sides."""

    def __init__(self, d_x: int, d_y: int, most: int = _PAIRS) -> None:
        self.pairs = min(most, d_x, d_y)
        self.pad = (d_x - self.pairs, d_y - self.pairs)
        self.scales = [_scales(width, self.pairs) for width in (d_x, d_y)]
        self.map_x, self.map_y = (maps.affine(self.scales[i], seed=i + 1) for i in (0, 1))

    def kept(self, s_x: float, s_y: float) -> laws.Array:
        """The factor by which noise lowers each correlation: signal over signal and noise."""
        factor = np.ones(self.pairs)
        for scales, s in zip(self.scales, (s_x, s_y), strict=True):
            factor *= scales[: self.pairs] / np.sqrt(scales[: self.pairs] ** 2 + s**2)
        return factor


def _gaussian(d_x: int, d_y: int, bits: float) -> KnownInformation:
    frame = _Frame(d_x, d_y)
    law = _pairs_law(frame.pairs, bits)

    def noisy(s_x: float, s_y: float) -> Bits:
        rho = np.array(law.correlations) * frame.kept(s_x, s_y)
        # + 0.0, as independent pairs have -0.0 bits.
        return float(-0.5 * np.log2(1 - rho**2).sum()) + 0.0, 0.0

    return KnownInformation(
        f"gaussian-{bits:g}", "gaussian", law, frame.pad, frame.map_x, frame.map_y, noisy=noisy
    )


def _student(d_x: int, d_y: int, bits: float) -> KnownInformation:
    # The fewer degrees of freedom, the more information in the shared scale: half of all bits.
    def excess(log_dof: float) -> float:
        return laws.student_extra_bits(math.exp(log_dof), d_x, d_y) - bits / 2

    low, high = math.log(3.0), math.log(1e6)
    dof = math.exp(brentq(excess, low, high)) if excess(low) > 0 else math.exp(low)
    frame = _Frame(d_x, d_y)
    rest = bits - laws.student_extra_bits(dof, d_x, d_y)
    # All columns belong to the law, as the shared scale is in all of them: nothing is padded.
    law = laws.Canonical(_pairs_law(frame.pairs, rest).correlations, d_x, d_y, dof)
    return KnownInformation(
        f"student-{bits:g}", "student", law, map_x=frame.map_x, map_y=frame.map_y
    )


def _nonlinear(d_x: int, d_y: int, bits: float) -> KnownInformation:
    frame = _Frame(d_x, d_y)
    law, map_x = _pairs_law(frame.pairs, bits), maps.compose(frame.map_x, maps.wiggly_x)
    map_y = maps.compose(frame.map_y, maps.half_cube)
    return KnownInformation(f"nonlinear-{bits:g}", "nonlinear", law, frame.pad, map_x, map_y)


def _mixture(d_x: int, d_y: int, bits: float) -> KnownInformation:
    frame = _Frame(d_x, d_y, _MIXED_PAIRS)
    rho = _mixture_correlation(frame.pairs, bits)

    def noisy(s_x: float, s_y: float) -> Bits:
        return laws.information(_hidden(rho * frame.kept(s_x, s_y)))

    law = _hidden(np.full(frame.pairs, rho))
    return KnownInformation(
        f"mixture-{bits:g}", "mixture", law, frame.pad, frame.map_x, frame.map_y, noisy=noisy
    )


def _clusters(d_x: int, d_y: int, bits: float) -> KnownInformation:
    # Twice as many clouds as the bits need, so that their table is not yet one-to-one.
    count = 2 ** (math.ceil(bits) + 1)

    def table(share: float) -> laws.Array:
        even = np.full((count, count), (1 - share) / count**2)
        return np.asarray(even + share * np.eye(count) / count)

    share = brentq(lambda one: laws.table_bits(table(one)) - bits, 0.0, 1.0)
    return _clouds(f"clusters-{bits:g}", "clusters", table(share), d_x, d_y, radius=1 / 24)


def _deterministic(d_x: int, d_y: int, bits: float) -> KnownInformation:
    count = max(2, round(2**bits))
    table = np.eye(count) / count
    return _clouds(f"deterministic-{bits:g}", "deterministic", table, d_x, d_y, radius=0.0)


def _clouds(
    name: str, family: str, table: laws.Array, d_x: int, d_y: int, *, radius: float
) -> KnownInformation:
    x, y = (_centres(len(table), width, seed) for seed, width in enumerate((d_x, d_y), 1))
    # In many columns the centres are so far apart that the clouds would outweigh them.
    radii = [min(_WIDEST_CLOUD, radius * laws.least_distance(points)) for points in (x, y)]
    law = laws.Clusters(table, x, y, *radii)

    def noisy(s_x: float, s_y: float) -> Bits:
        wider = (math.hypot(radius, s) for radius, s in zip(radii, (s_x, s_y), strict=True))
        return laws.information(laws.Clusters(table, x, y, *wider), rows=_NOISY_ROWS)

    return KnownInformation(name, family, law, noisy=noisy)


def _pairs_law(pairs: int, bits: float) -> laws.Canonical:
    """Equal correlations of ``bits`` together."""
    # Each pair has -1/2 log2(1 - rho^2) bits.
    rho = math.sqrt(1 - 2 ** (-2 * max(0.0, bits) / pairs))
    return laws.Canonical((rho,) * pairs, pairs, pairs)


def _scales(width: int, pairs: int) -> laws.Array:
    """Standard deviations, those of the informative directions first; of mean square 1."""
    spectrum = 1 / np.sqrt(np.arange(1, width + 1))
    spectrum *= width / spectrum.sum()
    # Every other of the large directions is informative, where the width allows it.
    step = 2 if width >= 2 * pairs else 1
    informative = np.arange(pairs) * step
    rest = np.setdiff1d(np.arange(width), informative)
    return np.asarray(np.sqrt(spectrum[np.concatenate([informative, rest])]))


def _hidden(rho: laws.Array) -> laws.Mixture:
    """Correlated pairs, in all rows but a share of inliers without any."""
    pairs = len(rho)
    signal = np.eye(2 * pairs)
    place = np.arange(pairs)
    signal[place, pairs + place] = signal[pairs + place, place] = rho
    shares = [1 - _INLIERS, _INLIERS]
    return laws.mixture([[0.0] * (2 * pairs)] * 2, [signal, np.eye(2 * pairs)], pairs, shares)


@functools.lru_cache(maxsize=64)
def _mixture_correlation(pairs: int, bits: float) -> float:
    """Correlation at which the hidden Gaussian has about ``bits`` (its value is worked out)."""

    # In the logarithm of 1 - rho^2, in which the value is nearly linear up to 12 bits.
    def excess(log_gap: float) -> float:
        law = _hidden(np.full(pairs, math.sqrt(-math.expm1(-log_gap))))
        return laws.integrate(law, rows=10_000)[0] - bits

    return math.sqrt(-math.expm1(-brentq(excess, 1e-6, 27.0, xtol=1e-3)))


@functools.lru_cache(maxsize=32)
def _centres(count: int, width: int, seed: int) -> laws.Array:
    """Well separated points of unit scale: a lattice in few columns, random in many."""
    if width < 16:
        side = math.ceil(count ** (1 / width) - 1e-9)
        # Digit j of the number i to the base of the lattice's side is the place of point i.
        places = np.arange(count)[:, None] // side ** np.arange(width)[None] % side
        # A lattice in the order of its points would show y as a monotone map of x.
        points = np.random.default_rng([seed, count]).permutation(places).astype(np.float64)
    else:
        points = np.random.default_rng([seed, count, width]).standard_normal((count, width))
    points -= points.mean(0)
    return np.asarray(points / math.sqrt(float((points**2).mean())))


_IN_ORDER = (_gaussian, _student, _nonlinear, _mixture, _clusters, _deterministic)
# A family is named after its function.
_MAKERS = {maker.__name__.removeprefix("_"): maker for maker in _IN_ORDER}
FAMILIES = tuple(_MAKERS)
"""The families of populations, in their order."""
